//! As the interface `secrets`.

use super::HOST;
use crate::bindings::weft::filter::types::Error;

pub(crate) fn get(name: &str) -> Result<Vec<u8>, Error> {
    HOST.with_borrow(|host| host.grants.secrets.get(name).cloned().ok_or(Error::Denied))
}
