//! The proxies over real sockets: processes are little servers that send back what they get.

use super::*;

/// Far longer than anything here takes.
const SOON: Duration = Duration::from_secs(20);
/// Long enough for bytes to come that should not.
const A_WHILE: Duration = Duration::from_millis(200);

/// Two processes that echo, after the head of a request; 0 dials 1.
struct World {
    net: Net,
    echo: JoinSet<()>,
}

impl World {
    async fn new() -> Self {
        let mut echo = JoinSet::new();
        let mut ports = Vec::new();
        for _ in 0..2 {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
            ports.push(listener.local_addr().expect("an address").port());
            echo.spawn(async move {
                let mut streams = JoinSet::new();
                while let Ok((mut stream, _)) = listener.accept().await {
                    streams.spawn(async move {
                        let head = read_head(&mut stream).await.expect("a head");
                        assert!(head.starts_with(b"GET /rpc HTTP/1.1\r\nhost: x\r\n"), "{head:?}");
                        let (mut read, mut write) = stream.split();
                        tokio::io::copy(&mut read, &mut write).await.ok();
                        write.shutdown().await.ok();
                    });
                }
            });
        }
        let net = Net::start(ports, 1).await.expect("proxies start");
        Self { net, echo }
    }

    async fn dial(&self) -> TcpStream {
        let proxy = self.net.proxies[0];
        let mut stream: TcpStream =
            TcpStream::connect(("127.0.0.1", proxy)).await.expect("the proxy is there");
        let head = format!(
            "GET http://127.0.0.1:{}/rpc HTTP/1.1\r\nhost: x\r\n\r\n",
            self.net.wires.ports[1]
        );
        stream.write_all(head.as_bytes()).await.expect("it reads");
        stream
    }

    fn cut(&self, links: &[(usize, usize)], cut: Cut) -> Imposed {
        self.net.impose(links.to_vec(), Link { cut, ..Link::default() })
    }
}

async fn say(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.expect("it can be sent");
}

async fn hear(stream: &mut TcpStream, text: &str) {
    let mut heard = vec![0; text.len()];
    let read = tokio::time::timeout(SOON, stream.read_exact(&mut heard)).await;
    read.expect("in time").expect("it comes");
    assert_eq!(String::from_utf8_lossy(&heard), text);
}

async fn hear_nothing(stream: &mut TcpStream) {
    let read = tokio::time::timeout(A_WHILE, stream.read_u8()).await;
    assert!(read.is_err(), "{read:?}");
}

async fn is_reset(stream: &mut TcpStream) {
    let read = tokio::time::timeout(SOON, stream.read_u8()).await.expect("in time");
    let kind = read.expect_err("nothing comes").kind();
    assert!(
        matches!(kind, io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof),
        "{kind:?}"
    );
}

#[tokio::test]
async fn a_healthy_link_carries_everything_and_its_end() {
    let world = World::new().await;
    let mut stream = world.dial().await;
    say(&mut stream, "hello").await;
    hear(&mut stream, "hello").await;
    let many = "0123456789".repeat(200_000);
    let (mut read, mut write) = stream.split();
    let mut heard = String::new();
    let send = async {
        write.write_all(many.as_bytes()).await.expect("it can be sent");
        write.shutdown().await.expect("it can be ended");
    };
    let (read, ()) = tokio::join!(read.read_to_string(&mut heard), send);
    read.expect("it ends in order");
    assert!(heard == many);
    assert_eq!(world.net.counts(&[(0, 1), (1, 0)]), Counts::default());
}

#[tokio::test]
async fn a_silent_cut_holds_and_loses_nothing() {
    let world = World::new().await;
    let mut stream = world.dial().await;
    say(&mut stream, "before").await;
    hear(&mut stream, "before").await;
    for links in [&[(0, 1)][..], &[(1, 0)], &[(0, 1), (1, 0)]] {
        let cut = world.cut(links, Cut::Silent);
        say(&mut stream, "during").await;
        hear_nothing(&mut stream).await;
        assert!(cut.has_held() && !cut.has_slowed());
        drop(cut);
        hear(&mut stream, "during").await;
    }
    // A connection that is opened meanwhile hangs.
    let _cut = world.cut(&[(1, 0)], Cut::Silent);
    let mut other = world.dial().await;
    say(&mut other, "late").await;
    hear_nothing(&mut other).await;
}

#[tokio::test]
async fn a_reset_ends_what_is_open_and_what_is_opened() {
    let world = World::new().await;
    let mut stream = world.dial().await;
    say(&mut stream, "before").await;
    hear(&mut stream, "before").await;
    let cut = world.cut(&[(1, 0)], Cut::Reset);
    is_reset(&mut stream).await;
    is_reset(&mut world.dial().await).await;
    assert!(cut.has_held());
    drop(cut);
    let mut stream = world.dial().await;
    say(&mut stream, "after").await;
    hear(&mut stream, "after").await;
}

#[tokio::test]
async fn a_dead_process_is_noticed_at_once() {
    let mut world = World::new().await;
    let mut stream = world.dial().await;
    say(&mut stream, "before").await;
    hear(&mut stream, "before").await;
    world.echo.shutdown().await;
    is_reset(&mut stream).await;
    is_reset(&mut world.dial().await).await;
}

#[tokio::test]
async fn delays_are_kept_and_do_not_add_up() {
    let world = World::new().await;
    let mut stream = world.dial().await;
    say(&mut stream, "before").await;
    hear(&mut stream, "before").await;
    let (delay, jitter) = (Duration::from_millis(100), Duration::from_millis(50));
    let slow = world.net.impose(vec![(0, 1)], Link { delay, jitter, ..Link::default() });
    let numbers: Vec<String> = (0..50).map(|number| format!("{number:02}")).collect();
    let start = Instant::now();
    for number in &numbers {
        say(&mut stream, number).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    hear(&mut stream, &numbers.concat()).await;
    let took = start.elapsed();
    assert!(took >= delay, "{took:?}");
    assert!(took < delay * 25, "one after the other: {took:?}");
    assert!(slow.has_slowed() && !slow.has_held());
}

#[tokio::test]
async fn a_narrow_link_takes_its_time() {
    let world = World::new().await;
    let mut stream = world.dial().await;
    say(&mut stream, "before").await;
    hear(&mut stream, "before").await;
    let narrow = Link { bytes_per_second: Some(20_000), ..Link::default() };
    let narrow = world.net.impose(vec![(1, 0)], narrow);
    let start = Instant::now();
    let text = "0123456789".repeat(1_000);
    say(&mut stream, &text).await;
    hear(&mut stream, &text).await;
    assert!(start.elapsed() >= Duration::from_millis(450), "{:?}", start.elapsed());
    assert!(narrow.has_slowed());
}

#[tokio::test]
async fn a_link_that_was_narrow_is_wide_at_once() {
    let world = World::new().await;
    let mut stream = world.dial().await;
    say(&mut stream, "before").await;
    hear(&mut stream, "before").await;
    // A byte takes longer than anybody waits here.
    let narrow = Link { bytes_per_second: Some(1), ..Link::default() };
    let narrow = world.net.impose(vec![(1, 0)], narrow);
    let text = "0123456789".repeat(10);
    say(&mut stream, &text).await;
    hear_nothing(&mut stream).await;
    drop(narrow);
    hear(&mut stream, &text).await;
}

#[tokio::test]
async fn faults_overlap_and_each_heals_its_own() {
    let world = World::new().await;
    let mut stream = world.dial().await;
    say(&mut stream, "before").await;
    hear(&mut stream, "before").await;
    let long = world.cut(&[(0, 1), (1, 0)], Cut::Silent);
    let short = world.cut(&[(1, 0)], Cut::Silent);
    say(&mut stream, "during").await;
    hear_nothing(&mut stream).await;
    drop(short);
    hear_nothing(&mut stream).await;
    drop(long);
    hear(&mut stream, "during").await;
}

#[test]
fn a_link_is_as_bad_as_the_worst_fault() {
    let milliseconds = Duration::from_millis;
    let one = Link { cut: Cut::Silent, delay: milliseconds(5), ..Link::default() };
    let (delay, jitter) = (milliseconds(1), milliseconds(2));
    let other = Link { cut: Cut::None, delay, jitter, bytes_per_second: Some(7) };
    let both = Link { jitter, bytes_per_second: Some(7), ..one };
    assert_eq!((one.and(other), other.and(one)), (both, both));
    let narrower = Link { cut: Cut::Reset, bytes_per_second: Some(6), ..Link::default() };
    let all = Link { cut: Cut::Reset, bytes_per_second: Some(6), ..both };
    assert_eq!(both.and(narrower), all);
    assert_eq!(all.and(Link::default()), all);
}

#[tokio::test]
async fn what_is_no_request_for_a_process_is_refused() {
    let world = World::new().await;
    for head in ["GET / HTTP/1.1\r\n\r\n", "GET http://127.0.0.1:1/ HTTP/1.1\r\n\r\n", "x\r\n\r\n"]
    {
        let proxy = world.net.proxies[0];
        let mut stream: TcpStream =
            TcpStream::connect(("127.0.0.1", proxy)).await.expect("the proxy is there");
        say(&mut stream, head).await;
        hear(&mut stream, "HTTP/1.1 502 ").await;
    }
    let long = format!("GET http://127.0.0.1:1/{}", "x".repeat(HEAD_BYTES_MAX));
    let mut stream: TcpStream =
        TcpStream::connect(("127.0.0.1", world.net.proxies[0])).await.expect("there");
    stream.write_all(long.as_bytes()).await.ok();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "it ends");
}

#[tokio::test]
async fn everything_ends_with_the_net() {
    let world = World::new().await;
    let mut stream = world.dial().await;
    say(&mut stream, "before").await;
    hear(&mut stream, "before").await;
    let World { net, echo: _echo } = world;
    let proxy = net.proxies[0];
    drop(net);
    is_reset(&mut stream).await;
    let again = TcpStream::connect(("127.0.0.1", proxy)).await;
    assert!(again.is_err(), "{again:?}");
}
