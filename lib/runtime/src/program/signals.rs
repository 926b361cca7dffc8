//! SIGTERM and SIGINT drain, a second one ends at once, SIGHUP reloads.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::{Context, EXIT_LEFT};

pub(super) fn listen(context: Context, reload: watch::Sender<u64>) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(()) = terminate.recv() => stop(&context),
                Some(()) = interrupt.recv() => stop(&context),
                Some(()) = hang_up.recv() => {
                    tracing::info!("SIGHUP: reading files again");
                    reload.send_modify(|n| *n += 1);
                }
                else => return,
            }
        }
    });
    Ok(())
}

fn stop(context: &Context) {
    if context.shutdown.requested() {
        tracing::error!("second signal: leaving at once, without draining");
        #[expect(clippy::disallowed_methods, reason = "the operator asked twice: not to drain")]
        std::process::exit(i32::from(EXIT_LEFT));
    }
    tracing::info!("signal: draining; a second one ends at once");
    context.health.set_ready(false);
    context.shutdown.trigger();
}
