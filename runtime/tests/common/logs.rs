//! What the process logs, for tests of what it must log.

use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex};

use tracing_subscriber::filter::LevelFilter;

static LOGS: LazyLock<Logs> = LazyLock::new(|| {
    let logs = Logs::default();
    let writer = logs.clone();
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::INFO)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    logs
});

#[derive(Clone, Default)]
struct Logs {
    text: Arc<Mutex<Vec<u8>>>,
}

impl Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.text.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Begins to collect; harmless if it has begun.
pub fn collect() {
    LazyLock::force(&LOGS);
}

/// The lines that contain `part`.
pub fn lines_with(part: &str) -> Vec<String> {
    let text = LOGS.text.lock().unwrap().clone();
    let text = String::from_utf8_lossy(&text);
    text.lines()
        .filter(|line| line.contains(part))
        .map(str::to_owned)
        .collect()
}

/// Waits for a warning that contains both parts.
#[track_caller]
pub fn warned(address: &str, why: &str) {
    let start = std::time::Instant::now();
    loop {
        let lines = lines_with(address);
        if lines
            .iter()
            .any(|line| line.contains("WARN") && line.contains(why))
        {
            return;
        }
        let late = start.elapsed() > super::PATIENCE;
        assert!(
            !late,
            "no warning of {address} with '{why}', but {lines:#?}"
        );
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
