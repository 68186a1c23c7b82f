//! Servers that are not this crate's, such as Redis. A test that needs one is left out where it is not installed.

use std::{
    env,
    io::{Write, stderr},
    path::{Path, PathBuf},
    sync::Once,
};

/// Whether the test is to be left out, since one of these is missing: programs, or what `.ci/servers` installs into
/// `target/tmp`. It is said once, past the capture of the tests' output. With `SYMBL_TEST_SERVERS=required`, as
/// `.ci/test` sets it, nothing is left out.
///
/// # Panics
///
/// If something is missing and required.
pub(crate) fn left_out(needed: &[&str]) -> bool {
    static SAID: Once = Once::new();
    let missing: Vec<_> = needed.iter().copied().filter(|it| !is_there(it)).collect();
    if missing.is_empty() {
        return false;
    }
    let missing = missing.join(", ");
    let required = env::var("SYMBL_TEST_SERVERS").is_ok_and(|value| value == "required");
    assert!(!required, "this test needs {missing}");
    SAID.call_once(|| {
        let tests = env!("CARGO_CRATE_NAME");
        let _ = writeln!(
            stderr(),
            "LEFT OUT of the tests `{tests}`: what needs {missing}. `.ci/test` installs that first, and runs all."
        );
    });
    true
}

fn is_there(needed: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders = env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let installed = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(needed)
        .join("installed");
    installed.is_file() || folders.any(|folder| folder.join(needed).is_file())
}
