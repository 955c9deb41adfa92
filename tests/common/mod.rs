//! What every test over real processes stands on: a world with a directory, ports and a client of
//! its own, in which groups and coordinators are started.

pub(crate) mod command;
pub(crate) mod disk;
pub(crate) mod group;
pub(crate) mod http;
pub(crate) mod http_suite;
pub(crate) mod load;
pub(crate) mod node;
pub(crate) mod ports;
pub(crate) mod process;
pub(crate) mod slots;
pub(crate) mod until;
pub(crate) mod world;
