//! Programs of others that packets meet before ours.

use control::observed::Link;

use super::device;
use crate::kernel::bpf::{Attachment, ForeignProgram};

/// Reasons that are told; a program in front of every endpoint is one matter.
const TOLD: usize = 10;

/// One reason a program and hook.
pub(super) fn reasons(found: &[(Attachment, ForeignProgram)], links: &[Link]) -> Vec<String> {
    let reason = |(attachment, program): &(Attachment, ForeignProgram)| {
        format!(
            "shadowed: {} {}: program {} ({}) of another owner runs before ours and may end the chain; have it \
             attached after ours",
            device(attachment.ifindex, links),
            attachment.hook.name(),
            program.id,
            program.name,
        )
    };
    let mut reasons: Vec<String> = found.iter().take(TOLD).map(reason).collect();
    if found.len() > TOLD {
        reasons.push(format!("shadowed: and {} more programs before ours", found.len() - TOLD));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use dataplane_common::outcome::Hook;

    use super::*;

    #[test]
    fn a_program_before_every_endpoints_does_not_fill_the_screen() {
        let ours = Attachment { hook: Hook::EndpointIngress, ifindex: 7, program_id: 1 };
        let found = vec![(ours, ForeignProgram { id: 12, name: "theirs".to_owned() }); 1000];
        let reasons = reasons(&found, &[]);
        assert!(
            reasons[0].starts_with("shadowed: #7 endpoint-ingress: program 12 (theirs) "),
            "{}",
            reasons[0]
        );
        assert_eq!(
            (reasons.len(), reasons[10].as_str()),
            (11, "shadowed: and 990 more programs before ours")
        );
    }
}
