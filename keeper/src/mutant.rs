//! What this program can be made to do wrong, so that the checks are seen to catch it.

spillway_runtime::mutants! {
    /// A mark is cleared whatever its version is by now.
    ClearNewerMark = "clear-newer-mark",
}
