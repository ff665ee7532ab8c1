//! What processes cost, as the kernel counts it: processor time and the most memory.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// `/proc` counts in ticks of 10 ms, whatever the kernel's own (`USER_HZ`, proc(5)).
const TICK_MS: u64 = 10;

/// A process's processor time, of itself and of its children that were waited for.
pub(crate) fn cpu(pid: i32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid} has ended"))?;
    // The command's name is in parentheses and may hold any character; user and system time are the
    // 14th and the 15th field.
    let (_, rest) = stat.rsplit_once(") ").context("/proc tells no state")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks =
        |at: usize| -> Result<u64> { Ok(fields.get(at).context("/proc tells no times")?.parse()?) };
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * TICK_MS))
}

/// The most memory that a process has had resident, in bytes.
pub(crate) fn peak(pid: i32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid} has ended"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .context("/proc tells no peak")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// This process's id.
pub(crate) fn own_pid() -> Result<i32> {
    Ok(i32::try_from(std::process::id())?)
}
