//! The memory allocator.
//!
//! Planning and decoding allocate much and free on other threads, where the system's allocator is slow. This one gives memory back to the system
//! after 10 ms by default, so that every query faults its hash tables in anew; a server keeps it for 10 s.

use std::{env, os::unix::process::CommandExt, process::Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SETTING: &str = "MIMALLOC_PURGE_DELAY";
const KEEP_MILLISECONDS: &str = "10000";

/// Makes this process keep freed memory for a while. The allocator reads its settings before `main`, so the program is started once more in its
/// place; whoever made the setting already is obeyed.
pub(crate) fn keep_freed_memory() {
    if env::var_os(SETTING).is_some() {
        return;
    }
    let Ok(program) = env::current_exe() else { return };
    // Returns only if it failed; then all works as well, a little slower.
    let _ = Command::new(program)
        .args(env::args_os().skip(1))
        .env(SETTING, KEEP_MILLISECONDS)
        .exec();
}
