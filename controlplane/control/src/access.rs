//! Who may do what: one table of role, verb, thing and place, asked by every call of the API. A token is of one role and
//! holds for the whole mesh or for the namespaces that it names; what is of the whole mesh it then only reads.

use std::collections::BTreeSet;
use std::fmt;

use ipnet::IpNet;
use weft_policy::resource::{Kind, ObjectKey, ROOT_NAMESPACE};

use crate::token::Role;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Read,
    /// Make, replace, delete, end, publish.
    Change,
}

/// What a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thing {
    Object(Kind),
    /// Tokens that let proxies join.
    JoinToken,
    /// Tokens of people and programs.
    PersonToken,
    /// A proxy's session, and bans of identities.
    Proxy,
    /// Binaries of filters and their versions.
    Filter,
    Event,
    /// Which store this is, and whether it leads.
    Store,
    /// The roots that the mesh trusts, and what replaces them.
    Authority,
    /// The store with every secret, as a file.
    Snapshot,
}

/// The place that a thing has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    Mesh,
    Namespace(&'a str),
}

/// Rights of the holder of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    pub role: Role,
    /// Empty: the whole mesh.
    pub namespaces: BTreeSet<String>,
    /// Addresses that objects of a token for namespaces may take.
    pub addresses: BTreeSet<IpNet>,
}

/// Why something may not be done, and who may.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Denied(String);

/// The table: the roles that have a right, whatever the place.
pub fn roles(verb: Verb, thing: Thing) -> &'static [Role] {
    use Role::{Admin, Operator, Publisher, Viewer};
    match (verb, thing) {
        (_, Thing::Snapshot) | (Verb::Change, Thing::PersonToken | Thing::Store | Thing::Authority | Thing::Event) => {
            &[Admin]
        }
        (Verb::Read, Thing::JoinToken | Thing::PersonToken) => &[Operator, Admin],
        (
            Verb::Read,
            Thing::Object(_) | Thing::Proxy | Thing::Filter | Thing::Event | Thing::Store | Thing::Authority,
        ) => &[Viewer, Operator, Publisher, Admin],
        (Verb::Change, Thing::Object(_) | Thing::JoinToken | Thing::Proxy) => &[Operator, Admin],
        (Verb::Change, Thing::Filter) => &[Publisher, Admin],
    }
}

/// True for what is of the whole mesh and concerns everybody in it.
fn is_public(thing: Thing, place: Place<'_>) -> bool {
    match (thing, place) {
        (
            Thing::Object(Kind::Namespace | Kind::Mesh | Kind::Filter | Kind::FilterPublisher | Kind::PolicyTemplate)
            | Thing::Filter
            | Thing::Store
            | Thing::Authority,
            _,
        ) => true,
        // Policies of the root namespace hold everywhere.
        (
            Thing::Object(
                Kind::AccessPolicy
                | Kind::FilterPolicy
                | Kind::RateLimitPolicy
                | Kind::FaultPolicy
                | Kind::JwtPolicy
                | Kind::TrafficPolicy,
            ),
            Place::Namespace(namespace),
        ) => namespace == ROOT_NAMESPACE,
        (
            Thing::Object(_) | Thing::JoinToken | Thing::PersonToken | Thing::Proxy | Thing::Event | Thing::Snapshot,
            _,
        ) => false,
    }
}

impl Rights {
    /// True where the token is of some namespaces only.
    pub fn is_bound(&self) -> bool {
        !self.namespaces.is_empty()
    }

    /// Whether the role has the right anywhere; the place is judged where it is known.
    pub fn may_somewhere(&self, verb: Verb, thing: Thing) -> Result<(), Denied> {
        let roles = roles(verb, thing);
        if roles.contains(&self.role) {
            return Ok(());
        }
        let names: Vec<_> = roles.iter().map(|role| role.as_str()).collect();
        Err(Denied(format!("this needs the role {}; the token has {}", names.join(" or "), self.role)))
    }

    pub fn may(&self, verb: Verb, thing: Thing, place: Place<'_>) -> Result<(), Denied> {
        self.may_somewhere(verb, thing)?;
        let is_within = match place {
            Place::Mesh => false,
            Place::Namespace(namespace) => self.namespaces.contains(namespace),
        };
        if !self.is_bound() || is_within || (verb == Verb::Read && is_public(thing, place)) {
            return Ok(());
        }
        let wanted = match place {
            Place::Mesh => "a token for the whole mesh may".to_owned(),
            Place::Namespace(namespace) => format!("a token for {namespace}, or for the whole mesh, may"),
        };
        Err(Denied(format!("this token, which is of {self}, does not reach {}: {wanted}", place.of(thing))))
    }

    /// The place of an object, and whether it may be read or changed there.
    pub fn may_object(&self, verb: Verb, key: &ObjectKey) -> Result<(), Denied> {
        let named = |Denied(reason)| Denied(format!("{key}: {reason}"));
        self.may(verb, Thing::Object(key.kind), place_of(key)).map_err(named)
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "role {}", self.role)?;
        if self.is_bound() {
            let names: Vec<_> = self.namespaces.iter().map(String::as_str).collect();
            write!(f, " for {}", names.join(", "))?;
        }
        Ok(())
    }
}

impl Place<'_> {
    fn of(self, thing: Thing) -> String {
        let thing = match thing {
            Thing::Object(kind) => &format!("a {kind}"),
            Thing::JoinToken => "a join token",
            Thing::PersonToken => "a person's token",
            Thing::Proxy => "a proxy",
            Thing::Filter => "a filter",
            Thing::Event => "the audit log",
            Thing::Store => "the store",
            Thing::Authority => "the authority",
            Thing::Snapshot => "a snapshot",
        };
        match self {
            Self::Mesh => format!("{thing} of the whole mesh"),
            Self::Namespace(namespace) => format!("{thing} in {namespace}"),
        }
    }
}

/// A Namespace is its own place.
pub fn place_of(key: &ObjectKey) -> Place<'_> {
    match key.kind {
        Kind::Namespace => Place::Namespace(&key.name),
        Kind::Mesh | Kind::FilterPublisher | Kind::PolicyTemplate => Place::Mesh,
        Kind::Service
        | Kind::Workload
        | Kind::ReferenceGrant
        | Kind::HttpRoute
        | Kind::GrpcRoute
        | Kind::TlsRoute
        | Kind::TcpRoute
        | Kind::Filter
        | Kind::Secret
        | Kind::FilterPolicy
        | Kind::RateLimitPolicy
        | Kind::FaultPolicy
        | Kind::JwtPolicy
        | Kind::AccessPolicy
        | Kind::ExternalService
        | Kind::TrafficPolicy => Place::Namespace(&key.namespace),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLES: [Role; 4] = [Role::Viewer, Role::Operator, Role::Publisher, Role::Admin];

    /// V, O, P and A stand for the roles that may, a dot for one that may not.
    fn may(verb: Verb, thing: Thing, namespaces: &[&str], place: Place<'_>) -> String {
        let letter = |(role, letter): (Role, char)| {
            let namespaces = namespaces.iter().map(|name| (*name).to_owned()).collect();
            let rights = Rights { role, namespaces, addresses: BTreeSet::new() };
            if rights.may(verb, thing, place).is_ok() { letter } else { '.' }
        };
        ROLES.into_iter().zip("VOPA".chars()).map(letter).collect()
    }

    #[test]
    fn one_table_says_who_may_do_what_where() {
        use Verb::{Change, Read};
        let (shop, root, bank) = (Place::Namespace("shop"), Place::Namespace(ROOT_NAMESPACE), Place::Namespace("bank"));
        // Verb, thing, place; who may with a token for all, and with one for shop.
        let table = [
            (Read, Thing::Object(Kind::Service), shop, "VOPA", "VOPA"),
            (Read, Thing::Object(Kind::Service), bank, "VOPA", "...."),
            (Read, Thing::Object(Kind::Service), root, "VOPA", "...."),
            (Read, Thing::Object(Kind::AccessPolicy), root, "VOPA", "VOPA"),
            (Read, Thing::Object(Kind::AccessPolicy), bank, "VOPA", "...."),
            (Read, Thing::Object(Kind::JwtPolicy), root, "VOPA", "VOPA"),
            (Change, Thing::Object(Kind::RateLimitPolicy), shop, ".O.A", ".O.A"),
            (Change, Thing::Object(Kind::FaultPolicy), bank, ".O.A", "...."),
            (Read, Thing::Object(Kind::TrafficPolicy), root, "VOPA", "VOPA"),
            (Read, Thing::Object(Kind::TrafficPolicy), bank, "VOPA", "...."),
            (Change, Thing::Object(Kind::TrafficPolicy), root, ".O.A", "...."),
            (Read, Thing::Object(Kind::PolicyTemplate), Place::Mesh, "VOPA", "VOPA"),
            (Change, Thing::Object(Kind::PolicyTemplate), Place::Mesh, ".O.A", "...."),
            (Change, Thing::Object(Kind::TrafficPolicy), shop, ".O.A", ".O.A"),
            (Change, Thing::Object(Kind::TrafficPolicy), bank, ".O.A", "...."),
            (Change, Thing::Object(Kind::ExternalService), shop, ".O.A", ".O.A"),
            (Change, Thing::Object(Kind::ExternalService), root, ".O.A", "...."),
            (Read, Thing::Object(Kind::Namespace), bank, "VOPA", "VOPA"),
            (Read, Thing::Object(Kind::Mesh), Place::Mesh, "VOPA", "VOPA"),
            (Read, Thing::Object(Kind::Filter), root, "VOPA", "VOPA"),
            (Change, Thing::Object(Kind::Service), shop, ".O.A", ".O.A"),
            (Change, Thing::Object(Kind::Service), bank, ".O.A", "...."),
            // What leads into a namespace is permitted by who may write there.
            (Change, Thing::Object(Kind::ReferenceGrant), shop, ".O.A", ".O.A"),
            (Change, Thing::Object(Kind::ReferenceGrant), bank, ".O.A", "...."),
            (Change, Thing::Object(Kind::AccessPolicy), root, ".O.A", "...."),
            (Change, Thing::Object(Kind::Filter), root, ".O.A", "...."),
            (Change, Thing::Object(Kind::Namespace), bank, ".O.A", "...."),
            (Change, Thing::Object(Kind::Namespace), shop, ".O.A", ".O.A"),
            (Change, Thing::Object(Kind::Mesh), Place::Mesh, ".O.A", "...."),
            (Read, Thing::JoinToken, shop, ".O.A", ".O.A"),
            (Read, Thing::JoinToken, bank, ".O.A", "...."),
            (Change, Thing::JoinToken, shop, ".O.A", ".O.A"),
            (Change, Thing::JoinToken, bank, ".O.A", "...."),
            (Read, Thing::PersonToken, Place::Mesh, ".O.A", "...."),
            (Change, Thing::PersonToken, shop, "...A", "...A"),
            (Change, Thing::PersonToken, Place::Mesh, "...A", "...."),
            (Read, Thing::Proxy, shop, "VOPA", "VOPA"),
            (Read, Thing::Proxy, bank, "VOPA", "...."),
            (Change, Thing::Proxy, shop, ".O.A", ".O.A"),
            (Change, Thing::Proxy, bank, ".O.A", "...."),
            (Read, Thing::Filter, Place::Mesh, "VOPA", "VOPA"),
            (Change, Thing::Filter, Place::Mesh, "..PA", "...."),
            (Read, Thing::Event, shop, "VOPA", "VOPA"),
            (Read, Thing::Event, Place::Mesh, "VOPA", "...."),
            (Read, Thing::Store, Place::Mesh, "VOPA", "VOPA"),
            (Change, Thing::Store, Place::Mesh, "...A", "...."),
            (Read, Thing::Authority, Place::Mesh, "VOPA", "VOPA"),
            (Change, Thing::Authority, Place::Mesh, "...A", "...."),
            (Read, Thing::Snapshot, Place::Mesh, "...A", "...."),
            (Change, Thing::Snapshot, Place::Mesh, "...A", "...."),
        ];
        for (verb, thing, place, everywhere, bound) in table {
            assert_eq!(may(verb, thing, &[], place), everywhere, "{verb:?} {thing:?} {place:?}");
            assert_eq!(may(verb, thing, &["shop", "till"], place), bound, "{verb:?} {thing:?} {place:?} for shop");
        }
    }

    #[test]
    fn a_refusal_says_who_may() {
        let rights = |role, namespaces: &[&str]| Rights {
            role,
            namespaces: namespaces.iter().map(|name| (*name).to_owned()).collect(),
            addresses: BTreeSet::new(),
        };
        let key = ObjectKey::new(Kind::Service, "bank", "web");
        let told = |rights: Rights| rights.may_object(Verb::Change, &key).unwrap_err().to_string();
        assert_eq!(
            told(rights(Role::Viewer, &[])),
            "Service bank/web: this needs the role operator or admin; the token has viewer"
        );
        assert_eq!(
            told(rights(Role::Operator, &["shop", "till"])),
            "Service bank/web: this token, which is of role operator for shop, till, does not reach a Service in \
             bank: a token for bank, or for the whole mesh, may"
        );
    }
}
