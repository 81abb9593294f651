//! What the official compiler makes of frames about actions.

use super::*;

/// What the official compiler is to find about replicated objects.
const ABOUT_GROUPS: &[&str] = &[
    "prepareGroups = (action = (node = 7, local = 1), incarnation = 4, join = 77, aborted = \
         [(node = 7, local = 2), (node = 7, local = 3)], decider = (node = 7, local = 40))",
    "voteGroups = (action = (node = 7, local = 1), vote = yes, groups = [(node = 7, local = \
         40)], decider = (node = 7, local = 40))",
    "commitPart = (action = (node = 7, local = 1), part = (node = 7, local = 40))",
    "abortPart = (action = (node = 7, local = 1), part = (node = 7, local = 40))",
    "acknowledgeGroups = (action = (node = 7, local = 1), groups = [(node = 7, local = 42)], \
         site = false)",
    "queryGroups = (action = (node = 7, local = 1), part = (node = 7, local = 41))",
    "verdictPart = (action = (node = 7, local = 1), verdict = aborted, part = (node = 7, \
         local = 40))",
    "prepareGroups = (action = (node = 7, local = 1), incarnation = 16777215, join = \
         18446744073709551615, part = (node = 7, local = 44))",
    "voteGroups = (action = (node = 7, local = 1), vote = yes, part = (node = 7, local = 45))",
    "mergePart = (action = (node = 7, local = 1), parent = (node = 7, local = 2), part = (node = \
         7, local = 40))",
    "askDecider = (action = (node = 7, local = 1), decider = (node = 7, local = 66))",
    "updated = false, decider = (node = 7, local = 66), part = false)], others",
    "updated = false, decider = (node = 7, local = 66), part = true)], others",
];

/// Each body as a message of its own.
fn bodies(actions: &[Action]) -> Vec<u8> {
    let framed = actions.iter().flat_map(|action| {
        let mut w = Writer::new(MESSAGE_BYTES_MAX);
        action.write(&mut w, Slot::ROOT);
        w.to_framed().unwrap()
    });
    framed.collect()
}

#[test]
fn the_official_compiler_reads_actions_by_wire_capnp() {
    let Some(capnp) = test_support::require_tool("capnp") else {
        return;
    };
    let all = actions();
    let dir = test_support::temp_dir("actions");
    let file = dir.path().join("frames");
    let bytes: Vec<u8> = all.iter().flat_map(framed).collect();
    std::fs::write(&file, bytes).unwrap();
    let text = decode(&capnp, "Frame", &file);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), all.len(), "{text}");
    assert!(lines.iter().all(|line| line.contains("kind = 8")), "{text}");

    // The body again, as what it is: by way of its own message.
    std::fs::write(&file, bodies(&all)).unwrap();
    let text = decode(&capnp, "Action", &file);
    for part in [
        "prepare = (action = (node = 7, local = 1), incarnation = 4, join = 77, aborted = [(node \
         = 7, local = 2), (node = 7, local = 3)])",
        "vote = (action = (node = 7, local = 1), vote = readOnly)",
        "commit = (node = 7, local = 1)",
        "acknowledge = (node = 7, local = 1)",
        "abort = (node = 7, local = 1)",
        "merge = (action = (node = 7, local = 1), parent = (node = 7, local = 2))",
        "query = (node = 7, local = 1)",
        "verdict = (action = (node = 7, local = 1), verdict = inFlight)",
        "waits = [(wait = (node = 1311768467463790320, number = 1, incarnation = 5, shard = 3), \
         object = (node = 7, local = 101), waiter = (path = [(node = 7, local = 1), (node = 7, \
         local = 2), (node = 7, local = 9)], enclosing = 2, home = 1, bornMs = 1700000000001)",
        "resumed = (wait = (node = 1311768467463790320, number = 6",
        "probe = [(wait",
        "confirm = (cycle = 5, to = (node = 1311768467463790320, shard = 2), edge = [(wait",
        "confirmed = (cycle = 5, wait = (node = 1311768467463790320, number = 3, incarnation = 5, \
         shard = 3), holds = true)",
        "break = (wait = (node = 1311768467463790320, number = 3, incarnation = 5, shard = 3), \
         victim = (node = 7, local = 4), cycle = [(wait",
        "request = (action = (node = 7, local = 1), coordinator = [(node = 1311768467463790320, \
         join = 18446744073709551615, incarnation = 11259375, shard = 0, updated = false, \
         part = false)], others = [(node = 1311768467463790320, join = \
         18446744073709551614, incarnation = 11259375, shard = 1, updated = true, part = false)",
        "ask = (node = 7, local = 1)",
        "shard = 0, from = 65535",
        "home = (node = 7, local = 55)",
    ]
    .iter()
    .chain(ABOUT_GROUPS)
    {
        assert!(text.contains(part), "{part}\nin\n{text}");
    }
    let ended = body(|w, s| write_ended(w, s, End::Aborted(Abort::Silent(site(2)))));
    std::fs::write(&file, reframed(&ended)).unwrap();
    let text = decode(&capnp, "Ended", &file);
    let expected = "(end = silent, fault = store, site = (node = 1311768467463790320, shard = 2))";
    assert_eq!(text.trim(), expected);
    let told = body(|w, s| write_told(w, s, Some(Verdict::Aborted)));
    std::fs::write(&file, reframed(&told)).unwrap();
    assert_eq!(
        decode(&capnp, "Told", &file).trim(),
        "(known = true, verdict = aborted)"
    );
}

#[test]
fn the_official_compiler_reads_news_of_groups_by_wire_capnp() {
    let Some(capnp) = test_support::require_tool("capnp") else {
        return;
    };
    let dir = test_support::temp_dir("groups");
    let file = dir.path().join("news");
    let all = actions().into_iter();
    let news = all.filter(|action| matches!(action.what, What::Group(_)));
    let news: Vec<_> = news.collect();
    std::fs::write(&file, bodies(&news)).unwrap();
    let text = decode(&capnp, "Action", &file);
    for part in [
        "group = (object = (node = 7, local = 4), number = 9, view = 8, index = 40, complete = 41, \
         asked = 77, kind = 0, members = [1, 2, 3], entries = [(view = 8, index = 41, body = \
         \"first\"), (view = 9, index = 42, body = \"second\")], empty = false)",
        "page = (class = 17, schema = 18, version = 19, first = true, last = true, state = \
         \"state\", rows = [(part = 2, key = \"key\", value = \"value\")], replies = [(node = 6, \
         sequence = 5, keepMs = 4, incarnation = 3, body = \"reply\")], actions \
         = \"actions\", sending = 7, number = 0)",
    ] {
        assert!(text.contains(part), "{part}\nin\n{text}");
    }
}

fn decode(capnp: &std::path::Path, of: &str, file: &std::path::Path) -> String {
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/idl/wire.capnp");
    let output = std::process::Command::new(capnp)
        .args(["decode", "--short", schema, of])
        .stdin(std::fs::File::open(file).unwrap())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}
