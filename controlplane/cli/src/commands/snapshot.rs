//! `weft snapshot`: the whole control plane as one encrypted file, and back. The file is sealed and opened here: the
//! passphrase or key never leaves this machine.

mod seal;

use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use weft_api::{RestoreQuery, Restored, Store};

use self::seal::Secret;
use crate::access::AccessArgs;
use crate::answer::{Answer, Failure, Outcome};
use crate::api::{Client, Error};
use crate::output;
use crate::values;

#[derive(Debug, clap::Args)]
pub(crate) struct SnapshotArgs {
    #[command(subcommand)]
    command: SnapshotCommand,
}

#[derive(Debug, clap::Subcommand)]
enum SnapshotCommand {
    /// Save the store, the authority's keys, tokens and filters, as of one moment, encrypted.
    #[command(
        after_help = "Examples:\n  weft snapshot save mesh.snapshot --key-file backup.key\n  weft snapshot save mesh.snapshot    # asks for a passphrase"
    )]
    Save(SaveArgs),
    /// Restore a snapshot: it is checked as a whole first; then the control plane starts again with it and proxies follow.
    #[command(after_help = "Example:\n  weft snapshot restore mesh.snapshot --key-file backup.key --wait 1m")]
    Restore(RestoreArgs),
}

#[derive(Debug, clap::Args)]
struct SecretArgs {
    /// File whose first line is the passphrase, of 12 characters or more; - reads standard input [default: ask].
    #[arg(long, value_name = "FILE", conflicts_with = "key_file")]
    passphrase_file: Option<PathBuf>,
    /// File with a key, 32 random bytes or more.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct SaveArgs {
    /// The file to write, mode 0600; an existing file is never overwritten.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    secret: SecretArgs,
    #[command(flatten)]
    access: AccessArgs,
}

#[derive(Debug, clap::Args)]
struct RestoreArgs {
    /// The snapshot, as `weft snapshot save` wrote it.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Restore also what is of another authority than this control plane's, as after it was lost and set up anew.
    #[arg(long)]
    replace_authority: bool,
    /// Wait so long for the control plane to be back.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = values::duration)]
    wait: Duration,
    #[command(flatten)]
    secret: SecretArgs,
    #[command(flatten)]
    access: AccessArgs,
}

pub(crate) async fn run(args: SnapshotArgs) -> Outcome {
    match args.command {
        SnapshotCommand::Save(args) => save(args).await,
        SnapshotCommand::Restore(args) => restore(args).await,
    }
}

async fn save(args: SaveArgs) -> Outcome {
    if args.file.exists() {
        return Err(Failure::Refused(format!("{} is there already: it is never overwritten", args.file.display())));
    }
    let secret = args.secret.read(true)?;
    secret.check()?;
    let archive = args.access.client()?.download("/snapshot").await?;
    let sealed = seal::seal(&archive, &secret)?;
    // A file is opened once before it is believed.
    if seal::open(&sealed, &secret)? != archive {
        return Err(anyhow::anyhow!("the sealed snapshot does not open").into());
    }
    write(&args.file, &sealed).with_context(|| format!("cannot write {}", args.file.display()))?;
    output::say(&format!("{} holds the control plane, {} bytes", args.file.display(), sealed.len()));
    Ok(Answer::Yes)
}

async fn restore(args: RestoreArgs) -> Outcome {
    let sealed = std::fs::read(&args.file).with_context(|| format!("cannot read {}", args.file.display()))?;
    let secret = args.secret.read(false)?;
    let named =
        |error: anyhow::Error| Failure::Refused(format!("{}: {error}; nothing was changed", args.file.display()));
    let archive = seal::open(&sealed, &secret).map_err(named)?;
    let client = args.access.client()?;
    let query = RestoreQuery { replace_authority: args.replace_authority };
    let headers = [("content-type", "application/octet-stream".to_owned())];
    let answer: Restored = client.upload("/snapshot", &query, &headers, archive).await?;
    let Restored { restored, store, epoch, .. } = &answer;
    output::say(&format!(
        "revision {} of {} is restored; store {store}, epoch {epoch}",
        restored.revision,
        output::moment(restored.created_unix),
    ));
    back(&client, *epoch, args.wait, args.replace_authority).await
}

/// Waits until the control plane answers again. Its tokens and its CA may be others now.
async fn back(client: &Client, epoch: u64, patience: Duration, may_have_another_ca: bool) -> Outcome {
    const LOOK: Duration = Duration::from_millis(250);
    let deadline = std::time::Instant::now() + patience;
    loop {
        match client.fetch::<Store>("/store").await {
            Ok(store) if store.epoch == epoch => {
                output::say("the control plane is back");
                return Ok(Answer::Yes);
            }
            Err(Error::Refused(refusal)) if refusal.status == 401 => {
                output::say(
                    "the control plane is back; this token is not one of the snapshot's: take its operator.token",
                );
                return Ok(Answer::Yes);
            }
            // It is there, and proves to be one that this command line does not trust.
            Err(Error::Unreachable { is_untrusted: true, .. }) if may_have_another_ca => {
                output::say(
                    "the control plane is back, with the snapshot's authority: take ca.pem and operator.token from its state folder",
                );
                return Ok(Answer::Yes);
            }
            Ok(_) | Err(_) if std::time::Instant::now() < deadline => tokio::time::sleep(LOOK).await,
            Ok(_) | Err(_) => {
                output::complain(
                    "the control plane is not back yet, or has another CA now: see its log, and its ca.pem",
                );
                return Ok(Answer::No);
            }
        }
    }
}

impl SecretArgs {
    fn read(&self, is_new: bool) -> anyhow::Result<Secret> {
        if let Some(path) = &self.key_file {
            let bytes = std::fs::read(path).with_context(|| format!("cannot read the key {}", path.display()))?;
            return Ok(Secret::Key(bytes));
        }
        let text = match &self.passphrase_file {
            Some(path) if path == Path::new("-") => line(&std::io::read_to_string(std::io::stdin())?),
            Some(path) => {
                let text = std::fs::read_to_string(path);
                line(&text.with_context(|| format!("cannot read the passphrase {}", path.display()))?)
            }
            None => ask(is_new)?,
        };
        Ok(Secret::Passphrase(text))
    }
}

fn line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// Asks at the terminal, which shows nothing of the answer; a new passphrase twice.
fn ask(is_new: bool) -> anyhow::Result<String> {
    anyhow::ensure!(
        std::io::stdin().is_terminal(),
        "a passphrase is needed: give --passphrase-file or --key-file where there is no terminal"
    );
    let first = unseen("Passphrase: ")?;
    if is_new && first != unseen("Again: ")? {
        anyhow::bail!("the two differ");
    }
    Ok(first)
}

fn unseen(prompt: &str) -> anyhow::Result<String> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let terminal = std::io::stdin();
    let shown = tcgetattr(&terminal).context("the terminal can't be asked")?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    let mut out = std::io::stderr();
    out.write_all(prompt.as_bytes())?;
    tcsetattr(&terminal, OptionalActions::Flush, &hidden).context("the terminal can't be asked")?;
    let mut text = String::new();
    let read = terminal.read_line(&mut text);
    tcsetattr(&terminal, OptionalActions::Flush, &shown).context("the terminal's echo could not be set back")?;
    out.write_all(b"\n")?;
    read?;
    Ok(line(&text))
}

/// A new file for the owner only, on disk when this returns.
fn write(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = std::fs::remove_file(path);
    }
    written
}
