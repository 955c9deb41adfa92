//! Every bound of the system, by name and unit. A queue, cache, retry or loop without one here is
//! a bug.

use std::time::Duration;

/// The longest key, in bytes of UTF-8.
pub const KEY_BYTES_MAX: usize = 4 * 1024;
/// The greatest version of a key: JSON numbers hold integers up to it.
pub const VERSION_MAX: u64 = (1 << 53) - 1;
/// The greatest index of an entry, number of a segment and sequence number of a batch that is
/// believed: they count from 1, and what is far beyond any log was never written by us. Adding to
/// one that is believed can't overflow.
pub const COUNTER_MAX: u64 = u64::MAX / 2;
/// The largest value unless `--max-value-size` says otherwise, in bytes.
pub const VALUE_BYTES_DEFAULT: usize = 8 * 1024 * 1024;
/// The largest `--max-value-size` that is accepted, in bytes.
pub const VALUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The smallest `--max-memory`, in bytes.
pub const MEMORY_BUDGET_BYTES_MIN: u64 = 1024 * 1024;
/// The part of a memory budget, in percent, that must be free before it is said to be so again:
/// a group that stays full is told of once.
pub const MEMORY_FREE_PERCENT: u64 = 5;
/// The longest group name (`--id`), in bytes.
pub const GROUP_NAME_BYTES_MAX: usize = 128;
/// The most groups in one ring.
pub const GROUPS_MAX: usize = 1024;
/// The most vnodes of one group.
pub const VNODES_MAX: u32 = 4096;
/// The vnodes of one group unless `--vnodes` says otherwise.
pub const VNODES_DEFAULT: u32 = 100;
/// The most members of one group.
pub const MEMBERS_MAX: usize = 15;
/// The most nodes that one configuration names: each member may have a learner beside it that is
/// about to take its place.
pub const NODES_MAX: usize = 2 * MEMBERS_MAX;
/// The most sets of voters in one configuration: two in a joint change.
pub const VOTER_SETS_MAX: usize = 2;
/// The most ranges that one group owns: one for each vnode, fewer where neighbours are merged.
pub const RANGES_MAX: usize = VNODES_MAX as usize;

/// How long one replica may take to say who it is or how it is, asked by a coordinator.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause between two rounds of a coordinator that looks for its ring.
pub const ASK_PAUSE_SEEKING: Duration = Duration::from_millis(250);
/// The pause between two rounds of a coordinator that serves; also between two log lines of one
/// that does not yet.
pub const ASK_PAUSE_SERVING: Duration = Duration::from_secs(1);
/// The least time between two rounds of a coordinator, however often it is told to hurry.
pub const ASK_PAUSE_MIN: Duration = Duration::from_millis(100);
/// In how many rounds a serving coordinator asks every member once, when nothing is amiss.
pub const ASK_ROUNDS_CALM: usize = 3;
/// How long after a group refused a claim a coordinator claims again.
pub const CLAIM_RETRY_PAUSE: Duration = Duration::from_secs(5);
/// The first pause of a request that no member of a group could take; it doubles.
pub const ROUTE_PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest such pause.
pub const ROUTE_PAUSE_MAX: Duration = Duration::from_millis(200);
/// The least time that one member gets for a stale read before another is asked.
pub const READ_ATTEMPT_MIN: Duration = Duration::from_millis(100);
/// How long a coordinator waits for a leader's answer before it asks the group whether it still leads.
pub const ANSWER_PATIENCE: Duration = Duration::from_millis(500);
/// How long a request that came to a replica while its group has no leader waits there for one;
/// shorter than [`READ_ATTEMPT_MIN`].
pub const LEADER_WAIT: Duration = Duration::from_millis(60);
/// What is left of the deadline at the end of that wait, for the way back.
pub const LEADER_WAIT_MARGIN: Duration = Duration::from_millis(40);
/// How often such a request looks whether there is a leader, at most.
pub const LEADER_RECHECK: Duration = Duration::from_millis(4);
/// How long a leader that is suspected to be gone may take to show that it is not; longer than
/// that means nothing.
pub const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long after a leader seemed to be gone it is looked for again, to be sure.
pub const PROBE_PAUSE: Duration = Duration::from_millis(5);
/// The shortest pause between two attempts to stand in the place of a leader that is gone.
pub const STAND_PAUSE_MIN: Duration = Duration::from_millis(10);
/// By how much such a pause may be longer.
pub const STAND_PAUSE_JITTER: Duration = Duration::from_millis(30);
/// How long a leader asks for leases after the last read by lease.
pub const LEASE_WANTED: Duration = Duration::from_secs(10);
/// What a coordinator keeps of a deadline for the way back, so that the reason arrives in time.
pub const ROUTE_MARGIN: Duration = Duration::from_millis(20);

/// The largest frame of an rpc connection, payload included, in bytes. Room for the largest value
/// and what goes around it.
pub const FRAME_BYTES_MAX: usize = VALUE_BYTES_MAX + 1024 * 1024;
/// The most calls under way on one rpc connection: the caller refuses more as overload, and the
/// server reads no more.
pub const CALLS_IN_FLIGHT_MAX: usize = 4096;
/// The most frames queued for sending on one rpc connection.
pub const SEND_QUEUE_FRAMES_MAX: usize = 4096;
/// The most bytes queued for sending on one rpc connection; a single larger frame may pass alone.
pub const SEND_QUEUE_BYTES_MAX: usize = 128 * 1024 * 1024;
/// The most bytes of calls taken in and not yet answered on one rpc connection: beyond it the
/// server reads no more of them; a single larger call may pass alone.
pub const CALL_BYTES_IN_FLIGHT_MAX: usize = 128 * 1024 * 1024;
/// The most frames in the buffer of one rpc stream; more wait.
pub const STREAM_QUEUE_FRAMES_MAX: usize = 256;
/// The most bytes in the buffer of one rpc stream; a single larger frame may pass alone.
pub const STREAM_QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// After this many bytes a write to an rpc connection takes no more frames with it.
pub const WRITE_BATCH_BYTES: usize = 1024 * 1024;
/// The largest payload of the two frames that open an rpc connection, in bytes: what a stranger
/// can make us hold.
pub const HANDSHAKE_BYTES_MAX: usize = 16 * 1024;
/// The most bytes of payload in one append message: after that the next message starts.
pub const APPEND_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The most entries in one append message. Followers refuse more.
pub const APPEND_ENTRIES_MAX: usize = 512;
/// The most memory that decoding a message takes for each of its bytes, in bytes: an empty URL takes
/// 24, and a full membership 22. Beside it come [`DECODED_BYTES_MAX`].
pub const DECODED_BYTES_PER_BYTE: usize = 32;
/// The most memory that decoding a message takes beyond [`DECODED_BYTES_PER_BYTE`], in bytes: for
/// [`APPEND_ENTRIES_MAX`] entries that are small, or that are memberships of a few nodes.
pub const DECODED_BYTES_MAX: usize = 512 * 1024;
/// One block of a snapshot on the wire, in bytes.
pub const SNAPSHOT_CHUNK_BYTES: usize = 256 * 1024;
/// A block of a snapshot file takes records until it has this many bytes, before compression.
pub const SNAPSHOT_BLOCK_BYTES: usize = 256 * 1024;
/// The largest block of a snapshot file, in bytes before compression: one record, whose key and
/// value came in one frame.
pub const SNAPSHOT_BLOCK_BYTES_MAX: usize = FRAME_BYTES_MAX + 1024;
/// The largest header of a snapshot file, in bytes: its claim came in one frame, the rest is small.
pub const SNAPSHOT_HEADER_BYTES_MAX: usize = FRAME_BYTES_MAX + 1024 * 1024;
/// A snapshot file is synced each time this many bytes were written, so that the last sync is
/// short and the log's syncs never wait behind a whole snapshot.
pub const SNAPSHOT_SYNC_BYTES: u64 = 1024 * 1024;
/// Who does what no client waits for rests so many times as long as he has worked, so that a machine that has little
/// of its processors left still has enough for its clients.
pub const REST: u32 = 3;
/// The longest single rest: work that was held up is not work.
pub const REST_MAX: Duration = Duration::from_millis(50);
/// How long after its beginning the writer of a snapshot rests for so long, and no longer than it works after that: meanwhile the log grows.
pub const SNAPSHOT_LONG_RESTS: Duration = Duration::from_secs(10);
/// The same for a start, while others serve the group's clients: meanwhile a second failure may stop the group.
pub const START_LONG_RESTS: Duration = Duration::from_secs(5);
/// The same for who frees the state that a snapshot has replaced: meanwhile both take memory.
pub const FREE_LONG_RESTS: Duration = Duration::from_secs(5);
/// The same for who receives a snapshot from the leader, and again for its check: meanwhile a second failure may stop the group.
pub const INSTALL_LONG_RESTS: Duration = Duration::from_secs(5);
/// The same for a leader and one snapshot that it sends; for entries to one follower that is far behind, it does not rest at all after that.
pub const CATCH_UP_RESTING_MAX: Duration = Duration::from_secs(10);
/// While a leader rests between pieces of one snapshot, one entry in so many that it keeps behind a snapshot may come, at most: those
/// behind this one must still be in the log when it has arrived.
pub const CATCH_UP_RESTING_SHARE: u64 = 4;
/// How long `sled` may take to open, read or write a replica's metadata.
pub const META_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The cache of a replica's metadata, in bytes.
pub const META_CACHE_BYTES: u64 = 1024 * 1024;
/// The longest lease that a leader may read by, whatever its election timeout is: a restarted follower
/// waits as long before it helps to elect anybody, for it does not know what it owed.
pub const LEASE_MAX: Duration = Duration::from_secs(1);
/// The slowest link that replication makes progress on, in bytes a second: one message may be a
/// whole value.
pub const APPEND_BYTES_PER_SECOND_MIN: u32 = 128 * 1024;
/// What a replica keeps free on its disk, in bytes, unless `--min-free-disk` says otherwise: several
/// segments of log.
pub const MIN_FREE_DISK_DEFAULT: u64 = 128 * 1024 * 1024;
/// A sync that takes as long as this is slow: an election timeout's worth of writes waits for it.
pub const SLOW_SYNC: Duration = Duration::from_millis(250);
/// A leader whose syncs have been slow for this long, one after the other, hands leadership over.
pub const SLOW_DISK_PATIENCE: Duration = Duration::from_secs(2);
/// How often a leader looks at how slow its disk is.
pub const SLOW_DISK_LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// The least time between two hand-overs of a replica because of its disk: where all disks are slow,
/// leadership does not go round and round.
pub const SLOW_DISK_HAND_OVER_PAUSE: Duration = Duration::from_secs(30);
/// How much of its own files a replica reads in a second to see whether they are damaged, in bytes.
pub const SCRUB_BYTES_PER_SECOND: u64 = 8 * 1024 * 1024;
/// How often a replica reads its own files again, unless `--scrub-interval` says otherwise.
pub const SCRUB_INTERVAL_DEFAULT: Duration = Duration::from_secs(6 * 60 * 60);
/// How often a replica looks at how full its disk is.
pub const DISK_LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// The most directories of damaged metadata that are kept for people to look at.
pub const META_DAMAGED_MAX: u32 = 4;
/// The most damaged logs and snapshots of a replica that are kept for people to look at, the first
/// and the newest: they may be large.
pub const DATA_DAMAGED_MAX: u32 = 2;
/// The most times that a replica gives up its data and rejoins by itself within [`REJOIN_WINDOW`].
pub const REJOINS_MAX: usize = 3;
/// After this time a rejoin counts no more.
pub const REJOIN_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);
/// The most that is read of the note about when a replica rejoined, in bytes.
pub const REJOINED_BYTES_MAX: u64 = 4 * 1024;
/// How often a replica with damaged data looks whether its group can do without it.
pub const SPARED_LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// A replica takes a checkpoint of its state whenever it has applied this many entries more: at every
/// index that is a multiple of it, so that all replicas of a group take the same ones.
pub const CHECKPOINT_ENTRIES: u64 = 512;
/// The most checkpoints that a replica keeps, and sends to another.
pub const CHECKPOINTS_MAX: usize = 64;
/// How often a replica compares its checkpoints with those of the others, if there are new ones.
pub const COMPARE_INTERVAL: Duration = Duration::from_secs(1);
/// How long another may take to answer with its own.
pub const COMPARE_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest note about why a replica was condemned that is read, in bytes.
pub const CONDEMNED_NOTE_BYTES_MAX: u64 = 4 * 1024;
/// The most client requests that one replica works on at a time; beyond it they get `503`.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 16 * 1024;
/// The most writes in the queue to Raft; who comes then waits for room. The batch that is taken from it is bounded by
/// [`REQUESTS_IN_FLIGHT_MAX`].
pub const PROPOSALS_MAX: usize = 1024;
/// The most bytes of request bodies that one process holds at a time; beyond it writes get `503`.
pub const BODY_BYTES_IN_FLIGHT_MAX: usize = 512 * 1024 * 1024;
/// The most bytes of a refused body that are read and dropped, so that the refusal gets through.
pub const BODY_LINGER_BYTES_MAX: usize = VALUE_BYTES_MAX;
/// How long a refused body is read and dropped.
pub const BODY_LINGER: Duration = Duration::from_secs(2);
/// The longest HTTP answer that the client reads, in bytes.
pub const ANSWER_BYTES_MAX: usize = VALUE_BYTES_MAX + 1024 * 1024;

/// The most idle connections that the client keeps to one server.
pub const CLIENT_IDLE_CONNECTIONS_MAX: usize = 1024;
/// What the client leaves between the deadline it gives a server and its own, so that the
/// server's answer arrives in time.
pub const CLIENT_MARGIN: Duration = Duration::from_millis(200);

/// How long a request may take unless `timeout=` says otherwise.
pub const REQUEST_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// What is left between the deadline that a store is given and the one that the client was
/// promised, so that its own answer, more exact than ours, arrives in time.
pub const DEADLINE_MARGIN: Duration = Duration::from_millis(50);
/// The longest `timeout=` that is accepted.
pub const REQUEST_TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// How long an rpc connection may take to open, handshake included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The first pause before an rpc connection is opened again; it doubles from try to try.
pub const RECONNECT_BACKOFF_MIN: Duration = Duration::from_millis(20);
/// The longest pause before an rpc connection is opened again.
pub const RECONNECT_BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How often each side of a lane of calls shows that it is there.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_millis(500);
/// How long a lane of calls may be silent before it counts as broken; rounded up to whole
/// [`KEEP_ALIVE_INTERVAL`]s. Calls to a leader that is paused or cut off have their answer by the
/// time it is replaced.
pub const SILENCE_MAX: Duration = Duration::from_millis(1500);
/// How long a closing rpc connection takes in and forgets what the other side still sends, so
/// that the kernel does not throw away the last answers.
pub const LINGER_MAX: Duration = Duration::from_secs(1);
/// How long a write to an rpc connection may move nothing before the connection is broken.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a stopping process waits for what it has begun.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of log after which a snapshot is taken, unless `--snapshot-log-size` says otherwise.
pub const SNAPSHOT_LOG_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;
/// Entries kept in the log behind a snapshot, unless `--keep-log-entries` says otherwise.
pub const KEEP_LOG_ENTRIES_DEFAULT: u64 = 50_000;
/// The size of a WAL segment, in bytes. One segment is in use and one may lie ready beside it, in
/// each of the nine replicas of a `sage dev`.
pub const WAL_SEGMENT_BYTES_DEFAULT: u64 = 16 * 1024 * 1024;
/// The largest WAL segment, in bytes: recovery holds one at a time in memory.
pub const WAL_SEGMENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// The largest record of the WAL, in bytes: an entry that came in one frame.
pub const WAL_RECORD_BYTES_MAX: usize = FRAME_BYTES_MAX;
/// A batch of the WAL with this many bytes gets no further record.
pub const WAL_BATCH_BYTES: usize = 4 * 1024 * 1024;
/// The most encoded bytes that wait to be written to the WAL; a larger request waits until it is
/// alone.
pub const WAL_QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The most requests that wait to be written to the WAL.
pub const WAL_QUEUE_REQUESTS_MAX: usize = 4096;
/// The bytes of entries that the WAL keeps in memory for replication, beside those that wait to be
/// written. Followers further behind are served from disk.
pub const WAL_CACHE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The most batches that one look into the WAL's index takes.
pub const WAL_LOOKUP_BATCHES_MAX: usize = 1024;
/// The most segments that are kept for reuse when the log was purged.
pub const WAL_SPARES_MAX: usize = 1;
/// A fresh segment is filled with zeros in steps of this many bytes, each synced: the writer's own
/// syncs never wait behind more.
pub const WAL_FILL_STEP_BYTES: usize = 256 * 1024;
/// The most jobs that wait for the thread that prepares and frees segments.
pub const WAL_KEEPER_JOBS_MAX: usize = 64;
/// The most connections that one process serves at a time; more wait to be accepted.
pub const CONNECTIONS_MAX: usize = 16 * 1024;
/// How long the headers of one request may take to arrive, and a connection may idle between two:
/// longer than common clients keep an idle connection, so that they close it and never send a
/// write into one that is just being closed.
pub const HEADERS_TIMEOUT: Duration = Duration::from_secs(120);
/// The pause after a connection could not be accepted.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The most versions that `If-Match` of one request may name.
pub const CONDITION_VERSIONS_MAX: usize = 64;

/// How many keys a page has unless `limit=` says otherwise.
pub const SCAN_LIMIT_DEFAULT: u32 = 100;
/// The most keys that `limit=` may ask for in one page.
pub const SCAN_LIMIT_MAX: u32 = 10_000;
/// The most keys that one group gives at a time; a page of more goes on with the next one.
pub const SCAN_PART_KEYS_MAX: usize = 8192;
/// The most values that one entry removes because they are over.
pub const EXPIRIES_MAX: usize = 1024;
/// The most operations, and the most conditions, in one transaction or batch.
pub const TXN_OPS_MAX: usize = 1000;
/// The most bytes of values that one transaction or batch reads; a batch reads no more from there on.
pub const TXN_READ_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The longest body of a transaction or batch, in bytes.
pub const TXN_BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The most memory of one answer of a transaction or batch that a group keeps for a coordinator that
/// sends it again.
pub const SESSION_ANSWER_BYTES_MAX: u64 = 128 * 1024;
/// The same for clients, by idempotency key: for ten minutes, and for many.
pub const KEY_ANSWER_BYTES_MAX: u64 = 4 * 1024;
/// The most memory of all answers of transactions and batches that a group keeps for coordinators, and
/// as much again for clients: further ones are not kept.
pub const TXN_ANSWERS_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What one result in such an answer counts for beside its value, in bytes.
pub const RESULT_OVERHEAD_BYTES: u64 = 96;
/// What an answer that is kept counts for in memory beyond the results of a transaction, in bytes.
pub const REMEMBERED_OVERHEAD_BYTES: u64 = 320;
/// More than a kept answer takes in a snapshot.
pub const REMEMBERED_BYTES_MAX: usize = 256 * 1024;
/// How often a leader looks for values that are over; more often when it knows of one.
pub const EXPIRY_LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How long it waits for the entry that removes them before it looks again whether it leads.
pub const EXPIRY_PATIENCE: Duration = Duration::from_secs(1);
/// The longest time to live of a value.
pub const TTL_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// The most keys of a span that one entry removes: no other write is applied while it does.
pub const SPAN_DELETES_MAX: usize = 4096;
/// The most bytes of keys and values in one page, of all groups together; a larger item comes alone.
pub const SCAN_PAGE_BYTES_MAX: usize = 1024 * 1024;
/// What each group may give of them, at least, in bytes: beyond 64 groups a page has more.
pub const SCAN_PART_BYTES_MIN: usize = 16 * 1024;
/// What a group is asked for beyond its share of a page, in keys: shares are never quite even, and a
/// small page shall be full wherever its keys are.
pub const SCAN_SLACK_KEYS: usize = 64;
/// The most scans and counts that one process works on at a time; beyond it they get `503`.
pub const SCANS_IN_FLIGHT_MAX: usize = 64;
/// After so many keys a count lets others run.
pub const COUNT_STEP_KEYS: usize = 4096;
/// The longest `X-Sage-Index` that is sent, in bytes: clients refuse answers with long headers.
pub const INDEX_HEADER_BYTES_MAX: usize = 4 * 1024;
/// The longest cursor that is read, in bytes: one behind the longest key, in base64.
pub const CURSOR_BYTES_MAX: usize = 6 * 1024;

/// The most sessions of coordinators that are open in one group; when another is opened, the one that
/// was not used for longest ends.
pub const SESSIONS_MAX: usize = 1024;
/// The most slots of a session, and so the most writes that a coordinator has under way in one group.
pub const SESSION_SLOTS_MAX: u32 = 16 * 1024;
/// A session that was not used for so long ends when another is opened.
pub const SESSION_IDLE_MAX: Duration = Duration::from_secs(60 * 60);
/// How long a coordinator tries to open a session before it looks anew who leads.
pub const SESSION_OPENING: Duration = Duration::from_secs(2);
/// The longest `Idempotency-Key`, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 64;
/// How long a group remembers at least what a write with an `Idempotency-Key` came to.
pub const IDEMPOTENCY_KEPT: Duration = Duration::from_secs(10 * 60);
/// The most writes with an `Idempotency-Key` that a group remembers; beyond it they get `503`. They
/// take about 300 bytes each.
pub const IDEMPOTENCY_KEYS_MAX: usize = 256 * 1024;
/// How many of the newest a group remembers however old they are.
pub const IDEMPOTENCY_KEYS_SPARED: usize = IDEMPOTENCY_KEYS_MAX / 2;
/// The most forgotten idempotency keys that one write takes out: more than it brings.
pub const IDEMPOTENCY_KEYS_PURGED: usize = 8;

/// The most positions that `X-Sage-Min-Index` of one request may name.
pub const MIN_INDEXES_MAX: usize = 64;
/// How long a stale read waits for the positions that it must have reached.
pub const MIN_INDEX_PATIENCE: Duration = Duration::from_secs(1);
/// How long a follower waits for entries that it must have for a read before it leaves the read to
/// the leader.
pub const FOLLOWER_READ_PATIENCE: Duration = Duration::from_millis(100);

/// The changes that a replica keeps for watchers, in bytes, unless `--watch-history` says otherwise.
pub const WATCH_HISTORY_BYTES_DEFAULT: u64 = 32 * 1024 * 1024;
/// The most changes in one answer to a process that watches.
pub const WATCH_TOLD_EVENTS_MAX: usize = 1024;
/// The most bytes of changes in such an answer; a larger change comes alone.
pub const WATCH_TOLD_BYTES_MAX: usize = 1024 * 1024;
/// After looking at so many changes others run.
pub const WATCH_LOOK_EVENTS: usize = 4096;
/// How long a group waits for a change before it answers that there is none: less than
/// [`ANSWER_PATIENCE`], so that nobody doubts its leader for that.
pub const WATCH_WAIT: Duration = Duration::from_millis(250);
/// How long a process may wait for such an answer in all.
pub const WATCH_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause before a group is asked again that could not answer.
pub const WATCH_PAUSE: Duration = Duration::from_millis(100);
/// A group that has not answered its watchers for so long has none any more: they are told to come again.
pub const WATCH_SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long a process goes on following a group after its last watcher has left.
pub const WATCH_LINGER: Duration = Duration::from_secs(30);
/// The newest changes of a group that a process keeps for its watchers, in bytes: who is further behind
/// asks the group.
pub const WATCH_TAIL_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The most changes that one watcher is given at a time.
pub const WATCH_STEP_EVENTS: usize = 64;
/// The most bytes of changes that it is given at a time; a larger change comes alone.
pub const WATCH_STEP_BYTES: usize = 32 * 1024;
/// A change of so many bytes is put in the form in which it is sent once, for all its watchers.
pub const WATCH_SHARED_BYTES_MIN: usize = 4 * 1024;
/// The most bytes of changes that all watchers of a process hold for themselves, which have missed them and
/// asked for them; who asks for more waits for others to take what is theirs.
pub const WATCH_CATCH_UP_BYTES_MAX: usize = 256 * 1024 * 1024;
/// The most watchers that one process serves at a time: of its connections some are left for others.
pub const WATCHES_MAX: usize = 15 * 1024;
/// The most watchers of one process that ask one group at a time for what they have missed.
pub const WATCH_CATCH_UPS_MAX: usize = 32;
/// How often a watcher is told how far it has come when nothing has changed that it watches.
pub const WATCH_PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// The longest position of a watch that is read, in bytes: of all groups, in base64.
pub const RESUME_BYTES_MAX: usize = 24 * 1024;
/// The most bytes of an answer that wait for a slow client, beside what is in its socket, and the longest
/// head of a request.
pub const HTTP_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// How long a client may take nothing of an answer before its connection is closed.
pub const SLOW_READER_MAX: Duration = Duration::from_secs(30);
/// The longest line of a watch that the client reads, in bytes: text of nothing but escapes.
pub const EVENT_LINE_BYTES_MAX: usize = 6 * VALUE_BYTES_MAX + 1024 * 1024;
/// The first pause before a client opens a lost watch again; it doubles from try to try.
pub const WATCH_RETRY_MIN: Duration = Duration::from_millis(50);
/// The longest such pause.
pub const WATCH_RETRY_MAX: Duration = Duration::from_secs(2);

/// The most connections that `sage bench` opens.
pub const BENCH_CLIENTS_MAX: usize = CONNECTIONS_MAX;
/// The most threads that `sage bench` drives them from.
pub const BENCH_THREADS_MAX: usize = 256;
/// The most keys that `sage bench` spreads its operations over: their names have ten digits, and they are
/// all loaded.
pub const BENCH_KEYS_MAX: u64 = 1_000_000_000;
/// The highest rate that `sage bench` is asked for, in operations per second: far beyond any server.
pub const BENCH_RATE_MAX: u64 = 10_000_000;
/// The longest run of one workload of `sage bench`.
pub const BENCH_DURATION_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The longest latency that `sage bench` tells from a longer one.
pub const BENCH_LATENCY_MAX: Duration = Duration::from_secs(60 * 60);
/// The bytes beyond one value that its values are cut from.
pub const BENCH_VALUES_SLACK: usize = 64 * 1024;
/// The most bytes of values in one request that loads keys.
pub const BENCH_LOAD_BYTES: usize = 1024 * 1024;
/// The most connections that load keys at a time.
pub const BENCH_LOADERS_MAX: usize = 16;
/// How often a request that loads keys is sent again before the run is given up.
pub const BENCH_LOAD_TRIES: u32 = 10;
/// The first pause of a client of `sage bench` after a failure; it doubles from one to the next.
pub const BENCH_PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest such pause.
pub const BENCH_PAUSE_MAX: Duration = Duration::from_millis(200);
