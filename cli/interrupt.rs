//! Ctrl-C and the system's request to end, heard from the moment a command begins.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Both signals. Made before a command leaves anything behind: one that came earlier would end the
/// process at once, and nothing would be taken back.
pub(crate) struct Interrupt {
    keyboard: Signal,
    system: Signal,
}

impl Interrupt {
    /// Listens from now on.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Interrupt {
            keyboard: signal(SignalKind::interrupt())?,
            system: signal(SignalKind::terminate())?,
        })
    }

    /// Returns once one of them has come, which may have been before the call.
    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            _ = self.keyboard.recv() => {}
            _ = self.system.recv() => {}
        }
    }
}
