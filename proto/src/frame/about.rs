//! What a frame holds besides series: names, the epoch before, declarations, host info.

use prost::Message as _;
use uuid::Uuid;

use super::body::{DeclarationMessage, HostInfoMessage, PreviousEpochMessage};
use super::{FrameError, within};
use crate::batch::{Declaration, HostInfo, PreviousEpoch};
use crate::limits;

pub(super) fn check_environment(environment: &str) -> Result<(), FrameError> {
    within("length of the environment", environment.len(), limits::ENVIRONMENT_BYTES_MAX)?;
    if is_environment_name(environment) {
        return Ok(());
    }
    Err(FrameError::Content("an environment is made of ASCII letters, digits, '-', '_' and '.'"))
}

/// Whether `name` may be an environment's.
#[must_use]
pub fn is_environment_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !name.is_empty() && name.len() <= limits::ENVIRONMENT_BYTES_MAX && name.bytes().all(allowed)
}

pub(super) fn check_host(host: &str) -> Result<(), FrameError> {
    within("length of the host", host.len(), limits::HOST_BYTES_MAX)?;
    if host.is_empty() { Err(FrameError::Content("the host has no name")) } else { Ok(()) }
}

fn read_epoch(bytes: &[u8]) -> Result<Uuid, FrameError> {
    let epoch = Uuid::from_slice(bytes).map_err(|_| FrameError::Malformed("epoch"))?;
    if epoch.is_nil() { Err(FrameError::Malformed("epoch")) } else { Ok(epoch) }
}

pub(super) fn read_previous(bytes: &[u8]) -> Result<PreviousEpoch, FrameError> {
    let message =
        PreviousEpochMessage::decode(bytes).map_err(|_| FrameError::Malformed("previous epoch"))?;
    Ok(PreviousEpoch { epoch: read_epoch(&message.epoch)?, last_seq: message.last_seq })
}

pub(super) fn read_declarations(messages: &[&[u8]]) -> Result<Vec<Declaration>, FrameError> {
    messages
        .iter()
        .map(|bytes| {
            let message = DeclarationMessage::decode(*bytes)
                .map_err(|_| FrameError::Malformed("declaration"))?;
            within("length of a reason", message.reason.len(), limits::REASON_BYTES_MAX)?;
            if message.first_seq == 0 || message.first_seq > message.last_seq {
                return Err(FrameError::Content("a declaration's range is empty"));
            }
            Ok(Declaration {
                epoch: read_epoch(&message.epoch)?,
                first_seq: message.first_seq,
                last_seq: message.last_seq,
                reason: message.reason,
            })
        })
        .collect()
}

pub(super) fn read_host_info(bytes: &[u8]) -> Result<HostInfo, FrameError> {
    let message = HostInfoMessage::decode(bytes).map_err(|_| FrameError::Malformed("host info"))?;
    within("length of the version", message.agent_version.len(), limits::VERSION_BYTES_MAX)?;
    within("labels of the host", message.labels.len(), limits::LABELS_MAX * 2)?;
    let mut labels: Vec<(String, String)> = Vec::with_capacity(message.labels.len() / 2);
    let mut bytes = 0;
    for pair in message.labels.chunks(2) {
        let [name, value] = pair else {
            return Err(FrameError::Malformed("host labels"));
        };
        bytes += name.len() + value.len();
        if name.is_empty() || labels.last().is_some_and(|(before, _)| before >= name) {
            return Err(FrameError::Content("the host's labels are not sorted and unique"));
        }
        labels.push((name.clone(), value.clone()));
    }
    within("length of the host's labels", bytes, limits::LABELS_BYTES_MAX)?;
    Ok(HostInfo {
        agent_version: message.agent_version,
        clock_skew_ms: message.clock_skew_ms,
        labels,
        backlog_batches: message.backlog_batches,
    })
}
