//! The core depends on nothing: what it needs is handed in, or written here.

#[test]
fn the_manifest_names_no_dependency() {
    let manifest = include_str!("../Cargo.toml");
    let mut section = "";
    let mut seen = false;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
            seen |= line == "[dependencies]";
            let kind = line.contains("dependencies");
            assert!(
                !kind || line == "[dependencies]",
                "there is a section {line}"
            );
            continue;
        }
        let blank = line.is_empty() || line.starts_with('#');
        assert!(
            section != "[dependencies]" || blank,
            "there is a dependency: {line}"
        );
    }
    assert!(seen, "there is no section [dependencies]");
}
