//! A proxy holds what it uses: the addresses that may be the mesh's, and what it asked for and was answered. Invariant: what
//! such a proxy neither holds nor was answered about is unknown, and never taken for something outside.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::bundle::ObjectName;

/// Something that a proxy asks the control plane for, and is told of from then on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ask {
    /// The service of this name.
    Service(ObjectName),
    /// The service with this address, or those in front of the workload that has it.
    Address(IpAddr),
}

impl Ask {
    /// An address is asked for as what it is: an IPv4 address mapped into IPv6 is that IPv4 address.
    pub fn address(address: IpAddr) -> Self {
        Self::Address(address.to_canonical())
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "service {name}"),
            Self::Address(address) => write!(f, "address {address}"),
        }
    }
}

/// Blocks of addresses: an address in none of them is nothing of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ranges(Vec<IpNet>);

/// Blocks of one family at the most. Beyond that they are made larger, and fewer.
const MOST_BLOCKS: usize = 64;

/// Bits that all addresses of a block have in common, from small blocks to large ones.
const BLOCKS_V4: [u8; 6] = [24, 20, 16, 12, 8, 0];
const BLOCKS_V6: [u8; 6] = [64, 56, 48, 32, 16, 0];

impl Ranges {
    /// Blocks around addresses, so coarse that a further workload seldom changes them.
    pub fn around(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let (mut v4, mut v6) = (BTreeSet::new(), BTreeSet::new());
        for address in addresses {
            match address.to_canonical() {
                IpAddr::V4(address) => v4.extend(Ipv4Net::new(address, BLOCKS_V4[0]).map(|block| block.trunc())),
                IpAddr::V6(address) => v6.extend(Ipv6Net::new(address, BLOCKS_V6[0]).map(|block| block.trunc())),
            }
        }
        let v4 = few(v4.into_iter().map(IpNet::V4).collect(), BLOCKS_V4);
        let v6 = few(v6.into_iter().map(IpNet::V6).collect(), BLOCKS_V6);
        Self(v4.into_iter().chain(v6).collect())
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|block| block.contains(&address))
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, block) in self.0.iter().enumerate() {
            write!(f, "{}{block}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// The blocks, joined where they are neighbours, and widened until there are few.
fn few(blocks: Vec<IpNet>, sizes: [u8; 6]) -> Vec<IpNet> {
    let mut joined = IpNet::aggregate(&blocks);
    for size in sizes {
        if joined.len() <= MOST_BLOCKS {
            break;
        }
        let wide = |block: &IpNet| match block.prefix_len() > size {
            true => IpNet::new(block.addr(), size).map_or(*block, |block| block.trunc()),
            false => *block,
        };
        let widened: BTreeSet<IpNet> = joined.iter().map(wide).collect();
        joined = IpNet::aggregate(&widened.into_iter().collect());
    }
    joined
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn around(addresses: &[&str]) -> Ranges {
        Ranges::around(addresses.iter().map(|text| text.parse().unwrap()))
    }

    #[test]
    fn ranges_are_blocks_around_what_there_is() {
        assert_eq!(around(&[]).to_string(), "");
        assert_eq!(around(&["10.0.0.1", "10.0.0.200", "::ffff:10.0.0.7"]).to_string(), "10.0.0.0/24");
        assert_eq!(around(&["10.0.0.1", "10.0.1.1", "192.168.7.9"]).to_string(), "10.0.0.0/23, 192.168.7.0/24");
        assert_eq!(around(&["fd00::1", "fd00:0:0:1::1", "10.0.0.1"]).to_string(), "10.0.0.0/24, fd00::/63");
        let ranges = around(&["10.0.0.1"]);
        let check = |address: &str, expect: bool| assert_eq!(ranges.contains(address.parse().unwrap()), expect);
        check("10.0.0.99", true);
        check("::ffff:10.0.0.99", true);
        check("10.0.1.1", false);
        check("fd00::1", false);
        let text = serde_json::to_string(&around(&["10.0.0.1", "fd00::1"])).unwrap();
        assert_eq!(text, r#"["10.0.0.0/24","fd00::/64"]"#);
        assert_eq!(serde_json::from_str::<Ranges>(&text).unwrap(), around(&["10.0.0.1", "fd00::1"]));
    }

    #[test]
    fn many_blocks_become_few() {
        let spread = (0..5_000_u32).map(|index| IpAddr::V4(Ipv4Addr::from_bits((10 << 24) + index * 2_048)));
        assert_eq!(
            Ranges::around(spread).to_string(),
            "10.0.0.0/9, 10.128.0.0/12, 10.144.0.0/13, 10.152.0.0/14, 10.156.0.0/18"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_address_is_in_range_and_blocks_are_few(
            v4 in proptest::collection::vec(any::<u32>(), 0..300),
            v6 in proptest::collection::vec(any::<u128>(), 0..100),
        ) {
            let v4 = v4.into_iter().map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)));
            let all: Vec<_> = v4.chain(v6.into_iter().map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)))).collect();
            let ranges = Ranges::around(all.iter().copied());
            prop_assert!(ranges.0.len() <= 2 * MOST_BLOCKS);
            for address in all {
                prop_assert!(ranges.contains(address), "{address} in {ranges}");
            }
        }
    }
}
