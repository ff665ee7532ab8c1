//! The daemon's shell over its real socket and journal, on deployments in memory.

#[path = "shell/bench.rs"]
mod bench;
#[path = "shell/crash.rs"]
mod crash;
#[path = "shell/declare.rs"]
mod declare;
#[path = "shell/disk.rs"]
mod disk;
#[path = "shell/fake.rs"]
mod fake;
#[path = "shell/hostile.rs"]
mod hostile;
#[path = "shell/life.rs"]
mod life;
#[path = "shell/mutate.rs"]
mod mutate;
#[path = "shell/program.rs"]
mod program;
#[path = "shell/watch.rs"]
mod watch;
#[path = "shell/window.rs"]
mod window;
