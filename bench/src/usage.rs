//! What a process uses of the machine, as the kernel tells in `/proc`.

use std::fs;

/// Nanoseconds of processor time that the living threads of a process have had, kernel and user
/// together; `None` where the kernel does not say.
pub(crate) fn cpu_ns(pid: u32) -> Option<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        // A thread may end while we look.
        let Ok(line) = fs::read_to_string(thread.ok()?.path().join("schedstat")) else {
            continue;
        };
        sum += line.split(' ').next()?.parse::<u64>().ok()?;
    }
    Some(sum)
}

/// The most bytes a process had resident since [`forget_peak`], or since its start.
pub(crate) fn peak_bytes(pid: u32) -> Option<u64> {
    status_bytes(pid, "VmHWM:")
}

/// The bytes a process has resident, pages of files included.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    status_bytes(pid, "VmRSS:")
}

/// The bytes a process has resident that no file backs: heap and stacks.
pub(crate) fn anonymous_bytes(pid: u32) -> Option<u64> {
    status_bytes(pid, "RssAnon:")
}

fn status_bytes(pid: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1_024)
}

/// Makes the peak of a process what it has resident now. Where that is not allowed the peak stays
/// what it was, which is no less true.
pub(crate) fn forget_peak(pid: u32) {
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;

    #[test]
    fn the_kernel_tells_of_this_process() {
        let me = std::process::id();
        let before = cpu_ns(me).expect("schedstat");
        let mut n = 0_u64;
        while cpu_ns(me).expect("schedstat") == before {
            n = black_box(n.wrapping_add(1));
        }
        let mib = 1 << 20;
        let block = black_box(vec![1_u8; 8 * mib]);
        assert!(peak_bytes(me).expect("VmHWM") > block.len() as u64);
        assert!(resident_bytes(me).expect("VmRSS") > anonymous_bytes(me).expect("RssAnon"));
        assert_eq!(cpu_ns(u32::MAX), None);
    }
}
