//! A proxy holds what it uses: the addresses that may be the mesh's, and what it asked for and was answered. Invariant: what
//! such a proxy neither holds nor was answered about is unknown, and never taken for something outside.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
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
        addresses.into_iter().collect::<Blocks>().ranges()
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

/// The smallest blocks, each with how many addresses lie in it: one that comes or goes costs no look at the others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Blocks(BTreeMap<IpNet, usize>);

impl Blocks {
    /// True where there was none in its block.
    pub fn add(&mut self, address: IpAddr) -> bool {
        let count = self.0.entry(block_of(address)).or_default();
        *count += 1;
        *count == 1
    }

    /// Takes one away that was added. True where it was the last in its block.
    pub fn remove(&mut self, address: IpAddr) -> bool {
        let block = block_of(address);
        let Some(count) = self.0.get_mut(&block) else { return false };
        *count -= 1;
        let is_last = *count == 0;
        if is_last {
            self.0.remove(&block);
        }
        is_last
    }

    /// These blocks, or fewer around them.
    pub fn ranges(&self) -> Ranges {
        let (v4, v6) = self.0.keys().copied().partition(|block| matches!(block, IpNet::V4(_)));
        Ranges([few(v4, BLOCKS_V4), few(v6, BLOCKS_V6)].concat())
    }
}

impl FromIterator<IpAddr> for Blocks {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        let mut blocks = Self::default();
        addresses.into_iter().for_each(|address| _ = blocks.add(address));
        blocks
    }
}

fn block_of(address: IpAddr) -> IpNet {
    let address = address.to_canonical();
    let bits = if address.is_ipv4() { BLOCKS_V4[0] } else { BLOCKS_V6[0] };
    IpNet::new(address, bits).expect("no address has fewer bits").trunc()
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
            // One by one, and taken away again, they come to the same.
            let (half, rest) = all.split_at(all.len() / 2);
            let mut blocks: Blocks = half.iter().copied().collect();
            let before = blocks.clone();
            rest.iter().for_each(|address| _ = blocks.add(*address));
            prop_assert_eq!(&blocks.ranges(), &ranges);
            rest.iter().for_each(|address| _ = blocks.remove(*address));
            prop_assert_eq!(blocks, before);
            for address in all {
                prop_assert!(ranges.contains(address), "{address} in {ranges}");
            }
        }
    }
}
