//! The daemon's shell over its real socket and journal, on deployments in memory.

mod bench;
mod crash;
mod declare;
mod disk;
mod fake;
mod hostile;
mod life;
mod mutate;
mod program;
mod watch;
mod window;
