//! `weft completions` and `weft man`: what shells and `man` know of the commands, made from their own definition.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Command;
use clap_complete::Shell;

use crate::answer::{Answer, Outcome};
use crate::output;

const COMPLETIONS: &str = "Examples:
  weft completions bash > /etc/bash_completion.d/weft
  weft completions zsh > ~/.zfunc/_weft";
const MAN: &str = "Example:
  weft man /usr/local/share/man/man1";

#[derive(Debug, clap::Args)]
#[command(after_help = COMPLETIONS)]
pub(crate) struct CompletionsArgs {
    /// Which shell.
    shell: Shell,
}

#[derive(Debug, clap::Args)]
#[command(after_help = MAN)]
pub(crate) struct ManArgs {
    /// Folder for the pages: weft.1, weft-apply.1 and so on.
    folder: PathBuf,
}

pub(crate) fn completions(args: &CompletionsArgs, mut weft: Command) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut weft, "weft", &mut script);
    output::print(&String::from_utf8_lossy(&script));
    Ok(Answer::Yes)
}

pub(crate) fn man(args: &ManArgs, weft: Command) -> Outcome {
    let folder = &args.folder;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    clap_mangen::generate_to(weft, folder).with_context(|| format!("cannot write to {}", folder.display()))?;
    Ok(Answer::Yes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        let weft = Command::new("weft").subcommand(Command::new("proxy").subcommand(Command::new("ban")));
        man(&ManArgs { folder: folder.path().join("man1") }, weft).unwrap();
        for page in ["weft.1", "weft-proxy.1", "weft-proxy-ban.1"] {
            let text = std::fs::read_to_string(folder.path().join("man1").join(page)).unwrap();
            assert!(text.contains(".SH NAME"), "{page}");
        }
    }
}
