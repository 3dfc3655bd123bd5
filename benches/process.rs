//! Child processes and what they use, as the kernel counts it.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use rustix::time::{ClockId, clock_gettime};

use crate::Fallible;

/// Kernel ticks per second in `/proc/PID/stat`: the same on every Linux that Rust runs on.
pub(crate) const TICKS: f64 = 100.0;
const LOOK: Duration = Duration::from_millis(20);

/// What a child used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    /// CPU seconds, user and system.
    pub(crate) cpu: f64,
    /// The same of its own children that ended.
    pub(crate) children_cpu: f64,
    /// Most resident memory, in MiB.
    pub(crate) peak_mib: f64,
    /// Wall seconds.
    pub(crate) seconds: f64,
}

/// A child that is killed when dropped.
pub(crate) struct Running(Child);

impl Running {
    /// Starts it.
    pub(crate) fn start(command: &mut Command) -> Fallible<Self> {
        Ok(Self(command.spawn().map_err(|error| format!("{}: {error}", command.get_program().display()))?))
    }

    /// The child.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Waits for a good end; `look` is called with its resident MiB every 20 ms.
    pub(crate) async fn finish(mut self, mut look: impl AsyncFnMut(f64) -> Fallible<()>) -> Fallible<Used> {
        let began = Instant::now();
        let pid = Pid::from_child(&self.0);
        let mut peak_mib: f64 = 0.0;
        // The end is seen without being collected, so that the kernel still has the figures.
        while waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG)?.is_none()
        {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
            peak_mib = peak_mib.max(mib(&status, "VmHWM:").unwrap_or(0.0));
            if let Some(now) = mib(&status, "VmRSS:") {
                look(now).await?;
            }
            tokio::time::sleep(LOOK).await;
        }
        let seconds = began.elapsed().as_secs_f64();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        // The name in brackets may hold spaces; what follows it does not: utime, stime, cutime, cstime (proc(5)).
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest).ok_or("/proc/PID/stat has no name")?;
        let ticks: Vec<f64> = fields.split_whitespace().skip(11).take(4).filter_map(|f| f.parse().ok()).collect();
        let [user, system, children_user, children_system] = ticks[..] else {
            return Err("/proc/PID/stat has no times".into());
        };
        let status = self.0.wait()?;
        if !status.success() {
            return Err(format!("a child process ends with {status}").into());
        }
        let (cpu, children_cpu) = ((user + system) / TICKS, (children_user + children_system) / TICKS);
        Ok(Used { cpu, children_cpu, peak_mib, seconds })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already, or there is nobody left to tell.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// CPU seconds of this process so far.
pub(crate) fn cpu_of_this_process() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0)).as_secs_f64()
}

/// A figure of `/proc/PID/status`.
pub(crate) fn mib(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024.0)
}
