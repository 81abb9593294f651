//! What must not compile, and what rustc says about it. `TRYBUILD=overwrite` rewrites the texts.

#[test]
fn misuse_is_told_by_the_compiler() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/misuse/*.rs");
}
