//! What the guide to testing shows is what is tested here.

/// The tests of the guide, in its order.
const TESTS: [&str; 2] = [
    include_str!("guide_embedded.rs"),
    include_str!("guide_cluster.rs"),
];

#[test]
fn the_guide_shows_the_tests() {
    let guide = include_str!("../../../docs/testing.md").replace("\r\n", "\n");
    let shown = guide.split("```rust\n").skip(1);
    let shown: Vec<_> = shown.filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(shown.len(), TESTS.len());
    for (shown, test) in shown.into_iter().zip(TESTS) {
        let test = test.replace("\r\n", "\n");
        assert!(
            test.ends_with(shown),
            "docs/testing.md does not show what is tested: copy the test into it\n{test}"
        );
    }
}
