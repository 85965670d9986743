//! Further grants of a joined proxy: a join token that comes into its file later is shown to the control plane, which adds
//! what it grants to the account. Each text is tried once; while the control plane is away it is tried again.

use std::path::PathBuf;
use std::time::Duration;

use tracing::{info, warn};
use weft_flow::Backoff;
use weft_policy::text::printable;
use weft_policy::wire::v1;
use weft_transport::tls::IdentityHandle;

use super::channel::{Channel, ChannelError};
use super::identity::{LOOK_FOR_TOKEN, is_away};
use crate::private;

/// First and longest wait between attempts.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Follows `control.token_file`.
pub struct TokenFile {
    pub path: PathBuf,
    pub channel: Channel,
    pub identity: IdentityHandle,
    /// The token that was tried last; what this proxy has joined by grants nothing new.
    pub tried: Option<String>,
}

impl TokenFile {
    /// Runs for as long as the process lives.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            let wait = match self.look().await {
                Some(Tried::Later(error)) => {
                    info!(error = %crate::chain(&error), "the control plane can't be asked for further grants yet");
                    backoff.wait(rand::random())
                }
                Some(Tried::Done) | None => {
                    backoff.reset();
                    LOOK_FOR_TOKEN
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Tries the token that is in the file, where it was not tried yet.
    async fn look(&mut self) -> Option<Tried> {
        let (token, _) = private::token(&self.path).ok()?;
        if self.tried.as_ref() == Some(&token) {
            return None;
        }
        let tried = self.gain(&token).await;
        if matches!(tried, Tried::Done) {
            self.tried = Some(token);
        }
        Some(tried)
    }

    async fn gain(&self, token: &str) -> Tried {
        let path = self.path.display();
        let answer = match self.channel.mutual(&self.identity) {
            Ok(mut client) => client.gain(v1::GainRequest { token: token.to_owned() }).await,
            Err(error) => return Tried::Later(error),
        };
        match answer {
            Ok(answer) => {
                let granted: Vec<_> = answer.into_inner().granted.iter().map(|it| printable(it).into_owned()).collect();
                if !granted.is_empty() {
                    info!(%path, granted = granted.join(" "), "the token in the file grants more to this proxy's account");
                }
                Tried::Done
            }
            Err(status) if is_away(&status) || status.code() == tonic::Code::ResourceExhausted => {
                Tried::Later(status.into())
            }
            // What a proxy has joined by is still there after a restart, and used up.
            Err(status) if status.code() == tonic::Code::Unauthenticated => {
                info!(%path, reason = %printable(status.message()), "the token in the file grants nothing");
                Tried::Done
            }
            Err(status) => {
                warn!(%path, reason = %printable(status.message()), "the token in the file grants nothing");
                Tried::Done
            }
        }
    }
}

enum Tried {
    Done,
    /// The control plane could not be asked.
    Later(ChannelError),
}
