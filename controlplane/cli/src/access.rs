//! Access to the control plane, its address and its token: flags, then environment, then `~/.config/weft/config.yaml`.
//! The token is read from its file at each use and never kept or printed.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use serde::{Deserialize, Serialize};

use crate::answer::{Answer, Outcome};
use crate::api::Client;

#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Control plane")]
pub(crate) struct AccessArgs {
    /// Address of the control plane's API, such as https://127.0.0.1:15013.
    #[arg(long, env = "WEFT_SERVER", value_name = "URL")]
    pub(crate) server: Option<String>,
    /// File that holds the operator token.
    #[arg(long, env = "WEFT_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// File with the CA (PEM) that the control plane's certificate comes from.
    #[arg(long, env = "WEFT_CA_FILE", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

/// Settings that `weft login` keeps in its configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    server: Option<String>,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
}

/// A complete answer to "which control plane, and as whom".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) server: String,
    pub(crate) token_file: PathBuf,
    pub(crate) ca_file: PathBuf,
}

impl Access {
    pub(crate) fn token(&self) -> anyhow::Result<String> {
        let text = std::fs::read_to_string(&self.token_file)
            .with_context(|| format!("cannot read the token file {}", self.token_file.display()))?;
        let token = text.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!(
                "the token file {} does not hold a token: one word of printable characters",
                self.token_file.display()
            );
        }
        Ok(token.to_owned())
    }

    pub(crate) fn ca_pem(&self) -> anyhow::Result<Vec<u8>> {
        std::fs::read(&self.ca_file).with_context(|| format!("cannot read the CA file {}", self.ca_file.display()))
    }
}

impl AccessArgs {
    /// Flags and environment (both through clap) before the config file.
    pub(crate) fn resolve(&self) -> anyhow::Result<Access> {
        let complete = self.server.is_some() && self.token_file.is_some() && self.ca_file.is_some();
        let config = if complete { Config::default() } else { read_config(&config_path()?)? };
        combine(self, config)
    }

    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        Client::new(&self.resolve()?)
    }
}

fn combine(args: &AccessArgs, config: Config) -> anyhow::Result<Access> {
    let missing = |what: &str, flag: &str, variable: &str| {
        anyhow!("{what} is not known: give {flag}, set {variable}, or run `weft login` once")
    };
    let server = args.server.clone().or(config.server);
    let token_file = args.token_file.clone().or(config.token_file);
    let ca_file = args.ca_file.clone().or(config.ca_file);
    Ok(Access {
        server: parse_server(
            &server.ok_or_else(|| missing("the control plane's address", "--server", "WEFT_SERVER"))?,
        )?,
        token_file: token_file.ok_or_else(|| missing("the token's file", "--token-file", "WEFT_TOKEN_FILE"))?,
        ca_file: ca_file.ok_or_else(|| missing("the control plane's CA", "--ca-file", "WEFT_CA_FILE"))?,
    })
}

/// `https://host[:port]`, nothing after it; port 15013 where none is given.
fn parse_server(text: &str) -> anyhow::Result<String> {
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let uri: http::Uri = with_scheme.parse().with_context(|| format!("--server {text}: not an address"))?;
    if uri.scheme_str() != Some("https") {
        bail!("--server {text}: the API is served over https only");
    }
    if uri.path() != "/" || uri.query().is_some() {
        bail!("--server {text}: only https://HOST:PORT, without a path");
    }
    let host = uri.host().filter(|host| !host.is_empty()).with_context(|| format!("--server {text}: no host in it"))?;
    Ok(format!("https://{host}:{}", uri.port_u16().unwrap_or(15013)))
}

fn config_path() -> anyhow::Result<PathBuf> {
    let base = match (std::env::var_os("XDG_CONFIG_HOME"), std::env::var_os("HOME")) {
        (Some(config), _) if Path::new(&config).is_absolute() => PathBuf::from(config),
        (_, Some(home)) => PathBuf::from(home).join(".config"),
        (_, None) => bail!("neither XDG_CONFIG_HOME nor HOME is set: give --server, --token-file and --ca-file"),
    };
    Ok(base.join("weft/config.yaml"))
}

fn read_config(path: &Path) -> anyhow::Result<Config> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Config::default()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    serde_saphyr::from_str(&text).map_err(|error| anyhow!("{}: {error}", path.display()))
}

const LOGIN_EXAMPLE: &str = "Example:
  weft login --server https://127.0.0.1:15013 --token-file /var/lib/weft-control/operator.token --ca-file /var/lib/weft-control/ca.pem";

#[derive(Debug, clap::Args)]
#[command(after_help = LOGIN_EXAMPLE)]
pub(crate) struct LoginArgs {
    #[command(flatten)]
    access: AccessArgs,
}

/// Tries the three and keeps them only when the server accepts them.
pub(crate) async fn login(args: LoginArgs) -> Outcome {
    let mut access = combine(&args.access, Config::default())?;
    for file in [&mut access.token_file, &mut access.ca_file] {
        *file = std::path::absolute(&*file).with_context(|| format!("cannot resolve {}", file.display()))?;
    }
    let version = Client::new(&access)?.authenticated_version().await?;
    let path = config_path()?;
    let kept = Config {
        server: Some(access.server.clone()),
        token_file: Some(access.token_file),
        ca_file: Some(access.ca_file),
    };
    keep(&path, &crate::output::yaml(&kept)?)?;
    crate::output::say(&format!("logged in to {} (version {version}); kept in {}", access.server, path.display()));
    Ok(Answer::Yes)
}

/// Writes beside and renames, so that a crash leaves the old file whole.
fn keep(path: &Path, text: &str) -> anyhow::Result<()> {
    let folder = path.parent().context("the config path has no folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let fresh = path.with_extension("yaml.new");
    std::fs::write(&fresh, text).with_context(|| format!("cannot write {}", fresh.display()))?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&fresh, path).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_https_origins() {
        let check = |text: &str, expect: Result<&str, &str>| match (parse_server(text), expect) {
            (Ok(server), Ok(expect)) => assert_eq!(server, expect),
            (Err(error), Err(part)) => assert!(format!("{error:#}").contains(part), "{error:#}"),
            (got, expect) => panic!("{text}: {got:?}, expected {expect:?}"),
        };
        check("https://127.0.0.1:15013", Ok("https://127.0.0.1:15013"));
        check("127.0.0.1", Ok("https://127.0.0.1:15013"));
        check("https://[::1]:9", Ok("https://[::1]:9"));
        check("http://127.0.0.1:15013", Err("https only"));
        check("https://a/b", Err("without a path"));
        check("https://", Err("not an address"));
    }

    #[test]
    fn flags_win_over_the_file_and_what_is_missing_is_named() {
        let file = Config { server: Some("https://a:1".into()), token_file: Some("/t".into()), ca_file: None };
        let args = AccessArgs { server: Some("https://b:2".into()), ..AccessArgs::default() };
        let error = combine(&args, file.clone()).unwrap_err().to_string();
        assert!(error.contains("--ca-file") && error.contains("WEFT_CA_FILE"), "{error}");
        let access = combine(&args, Config { ca_file: Some("/c".into()), ..file }).unwrap();
        assert_eq!((access.server.as_str(), access.token_file.to_str()), ("https://b:2", Some("/t")));
    }

    #[test]
    fn a_broken_config_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        std::fs::write(&path, "sever: https://a:1\n").unwrap();
        let error = read_config(&path).unwrap_err().to_string();
        assert!(error.contains("config.yaml") && error.contains("sever"), "{error}");
        assert_eq!(read_config(&folder.path().join("absent")).unwrap(), Config::default());
    }
}
