//! Applied services that contradict the file's.

use std::net::IpAddr;

use super::Book;
use crate::service::Service;

impl Book {
    /// Why applied services are not served.
    pub fn clashes(&self) -> Vec<String> {
        let hidden = self.applied.values().filter_map(|service| self.clash(service));
        hidden.collect()
    }

    fn clash(&self, service: &Service) -> Option<String> {
        let (name, file) = (&service.name, self.path.display());
        if self.file.contains_key(name) {
            return Some(format!(
                "service {name}: {file} has it too, and is followed; remove it there, or the applied one with \
                 'fanlight service remove {name}'"
            ));
        }
        if let Some(other) = self.names.get(&service.vip).filter(|other| *other != name) {
            return Some(format!(
                "service {name}: {} is the VIP of service {other} of {file}, which is followed; give one of them another",
                service.vip
            ));
        }
        let (address, what, other) = self.mistaken(service)?;
        Some(format!(
            "service {name}: {address} is {what} of service {other} of {file}, which is followed; give one of them \
             another"
        ))
    }

    /// The address by which packets of a service would be taken for another's of the file: a VIP that is a backend there,
    /// or a backend that is a VIP there; with what it is, and whose.
    pub(super) fn mistaken(&self, service: &Service) -> Option<(IpAddr, &'static str, &str)> {
        let vip = service.vip.address;
        if self.file_backends.contains(&vip) {
            let is_its = |other: &Service| other.backends.iter().any(|backend| backend.address == vip);
            return Some((vip, "a backend's address", self.name_in_file(is_its)));
        }
        let mut backends = service.backends.iter().map(|backend| backend.address);
        let address = backends.find(|address| self.file_vips.contains(address))?;
        Some((address, "the VIP's address", self.name_in_file(|other| other.vip.address == address)))
    }

    fn name_in_file(&self, is_it: impl Fn(&Service) -> bool) -> &str {
        self.file.values().find(|service| is_it(service)).map_or("", |service| &service.name)
    }
}
