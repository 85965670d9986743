//! `STATE/operator.token`: an admin's token that whoever may read the state folder has. It ends like any other; a new one is
//! put into the file in time. A file whose token the store does not know is never a lock-out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::ca::write_private;
use crate::hub::Hub;
use crate::now_unix;
use crate::token::{Grant, Role, TokenHash, TokenText};

/// The name of the token in the file, for `weft token list` and `revoke`.
pub(crate) const NAME: &str = "first-operator";

const LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
/// A token with less life left than this gets a successor.
const RENEW_BEFORE: i64 = 30 * 24 * 3600;

/// Sees to it that the file holds a token that is good for a while.
pub(super) async fn keep(hub: &Arc<Hub>, state: &Path) -> anyhow::Result<()> {
    let path = state.join("operator.token");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // An operator who took the file away wants its token to end.
            hub.revoke_tokens("system", |record| record.called() == NAME).await?;
            return write(hub, &path).await;
        }
        Err(error) => return Err(error).with_context(|| format!("operator token {}", path.display())),
    };
    let now = now_unix();
    let record = hub.token(TokenHash::of(&text)).await?;
    match record.filter(|record| matches!(record.grant, Grant::Operator { .. })) {
        Some(record) => match record.expires_unix {
            Some(at) if at - now > RENEW_BEFORE => Ok(()),
            Some(_) => write(hub, &path).await,
            None => {
                // A token without an end was made by an earlier release.
                hub.end_token(TokenHash::of(&text), now + RENEW_BEFORE).await?;
                write(hub, &path).await
            }
        },
        None if hub.has_admin().await? => {
            tracing::warn!(path = %path.display(),
                "the token in this file is not known here: it was revoked, or is another store's. Delete the file for a new one");
            Ok(())
        }
        None => {
            let aside = set_aside(&path)?;
            tracing::warn!(path = %path.display(), aside = %aside.display(),
                "the token in this file is not known here, nor is any other of an admin: it is moved away, a new one is made");
            write(hub, &path).await
        }
    }
}

fn set_aside(path: &Path) -> anyhow::Result<PathBuf> {
    let name = |number: u32| PathBuf::from(format!("{}.old-{number}", path.display()));
    let aside = (1..).map(name).find(|aside| !aside.exists()).unwrap_or_else(|| name(0));
    std::fs::rename(path, &aside).with_context(|| format!("operator token {}", path.display()))?;
    Ok(aside)
}

/// Makes a token and puts it into the file. The file comes first: where it can't be written no token is made, so that a
/// disk without room does not fill the store with tokens that nobody has.
async fn write(hub: &Arc<Hub>, path: &Path) -> anyhow::Result<()> {
    let grant = Grant::operator(Role::Admin);
    let text = TokenText::generate(&grant);
    let temporary = path.with_extension("token.new");
    let told = || format!("operator token {}", path.display());
    write_private(&temporary, format!("{}\n", text.reveal()).as_bytes()).with_context(told)?;
    let made = hub.keep_token("system", Some(NAME), grant, Some(LIFE), text).await;
    let made = made.inspect_err(|_| drop(std::fs::remove_file(&temporary)))?;
    if let Err(error) = std::fs::rename(&temporary, path) {
        hub.revoke_tokens("system", move |record| record.id == made.id).await?;
        return Err(error).with_context(told);
    }
    Ok(())
}
