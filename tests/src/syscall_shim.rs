//! A real server that is shown another time, or of another disk, than there is: its calls to the
//! system go through a shim of ours.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// What a deceived server is reported.
#[derive(Debug, Clone, Copy, Default)]
pub struct Deceit {
    /// Seconds that its clock is ahead.
    pub clock_ahead_seconds: i64,
    /// Bytes that are free on its disk; `None`: as many as there are.
    pub disk_free_bytes: Option<u64>,
}

/// Only what a server looks at the wall clock and the file system with.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long ahead(void) {
    const char *text = getenv("RIG_CLOCK_AHEAD");
    return text ? atol(text) : 0;
}

int clock_gettime(clockid_t id, struct timespec *at) {
    int result = (int)syscall(SYS_clock_gettime, id, at);
    if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) at->tv_sec += ahead();
    return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    int result = (int)syscall(SYS_gettimeofday, at, zone);
    if (result == 0 && at) at->tv_sec += ahead();
    return result;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

int statvfs(const char *restrict path, struct statvfs *restrict disk) {
    int (*real)(const char *, struct statvfs *) =
        (int (*)(const char *, struct statvfs *))dlsym(RTLD_NEXT, "statvfs");
    int result = real(path, disk);
    const char *text = getenv("RIG_DISK_FREE");
    if (result == 0 && text) {
        disk->f_bfree = strtoull(text, NULL, 10) / disk->f_frsize;
        disk->f_bavail = disk->f_bfree;
    }
    return result;
}

int statvfs64(const char *restrict path, struct statvfs64 *restrict disk) {
    return statvfs(path, (struct statvfs *)disk);
}
"#;

impl Deceit {
    /// Builds the shim in a folder, and gives the variables of the environment that a server is
    /// started with.
    ///
    /// # Errors
    /// When there is no C compiler, which building the programs needs as well.
    pub fn environment(&self, folder: &Path) -> Result<Vec<(String, String)>> {
        let (source, library) = (folder.join("deceit.c"), folder.join("deceit.so"));
        std::fs::write(&source, SHIM)
            .with_context(|| format!("failed to write {}", source.display()))?;
        let output = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .output()
            .context("failed to run cc")?;
        ensure!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
        let mut variables = vec![
            ("LD_PRELOAD".to_owned(), library.display().to_string()),
            ("RIG_CLOCK_AHEAD".to_owned(), self.clock_ahead_seconds.to_string()),
        ];
        if let Some(bytes) = self.disk_free_bytes {
            variables.push(("RIG_DISK_FREE".to_owned(), bytes.to_string()));
        }
        Ok(variables)
    }
}
