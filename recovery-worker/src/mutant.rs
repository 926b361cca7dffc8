//! What this program can be made to do wrong, so that the oracle is seen to catch it.

spillway_runtime::mutants! {
    /// An object is deleted before Kafka acknowledged its batches.
    DeleteBeforeAck = "delete-before-ack",
    /// An object is deleted whatever the group has stored.
    RetireWithoutOffset = "retire-without-offset",
}
