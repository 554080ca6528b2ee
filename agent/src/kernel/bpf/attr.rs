//! The parts of `union bpf_attr` and of the kernel's answers that we use (`linux/bpf.h`).

use bytemuck::{Pod, Zeroable};

/// The head of `bpf_attr` for BPF_OBJ_PIN and BPF_OBJ_GET.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ObjAttr {
    pub(super) path: u64,
    pub(super) fd: u32,
    pub(super) flags: u32,
}

/// The head of `bpf_attr` for BPF_LINK_CREATE on a tcx hook; of an XDP link what follows the flags is zero.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct LinkCreateAttr {
    pub(super) prog_fd: u32,
    pub(super) ifindex: u32,
    pub(super) attach_type: u32,
    pub(super) flags: u32,
    pub(super) relative: u32,
    pub(super) pad: u32,
    pub(super) expected_revision: u64,
}

/// The head of `bpf_attr` for BPF_LINK_UPDATE.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct LinkUpdateAttr {
    pub(super) link_fd: u32,
    pub(super) prog_fd: u32,
    pub(super) flags: u32,
    pub(super) old_prog_fd: u32,
}

/// The head of `bpf_attr` for BPF_OBJ_GET_INFO_BY_FD.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct InfoAttr {
    pub(super) fd: u32,
    pub(super) len: u32,
    pub(super) info: u64,
}

/// The head of `bpf_attr` for BPF_PROG_GET_FD_BY_ID.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct IdAttr {
    pub(super) id: u32,
    pub(super) next_id: u32,
    pub(super) open_flags: u32,
}

/// The head of `bpf_attr` for BPF_PROG_QUERY.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct QueryAttr {
    /// Or a control group's descriptor.
    pub(super) ifindex: u32,
    pub(super) attach_type: u32,
    pub(super) query_flags: u32,
    pub(super) attach_flags: u32,
    pub(super) prog_ids: u64,
    pub(super) count: u32,
    pub(super) pad: u32,
    pub(super) prog_attach_flags: u64,
    pub(super) link_ids: u64,
    pub(super) link_attach_flags: u64,
    pub(super) revision: u64,
}

/// The head of `bpf_attr` for BPF_PROG_LOAD.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct LoadAttr {
    pub(super) prog_type: u32,
    pub(super) insn_count: u32,
    pub(super) insns: u64,
    pub(super) license: u64,
}

/// The head of `bpf_attr` for BPF_PROG_TEST_RUN.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct TestRunAttr {
    pub(super) prog_fd: u32,
    pub(super) retval: u32,
    pub(super) size_in: u32,
    pub(super) size_out: u32,
    pub(super) data_in: u64,
    pub(super) data_out: u64,
    pub(super) repeat: u32,
    pub(super) duration: u32,
    pub(super) context_size_in: u32,
    pub(super) context_size_out: u32,
    pub(super) context_in: u64,
    pub(super) context_out: u64,
}

/// The head of `bpf_attr` for BPF_MAP_CREATE.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct MapAttr {
    pub(super) kind: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
}

/// The head of `bpf_attr` for BPF_MAP_UPDATE_ELEM.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ElementAttr {
    pub(super) map_fd: u32,
    pub(super) pad: u32,
    pub(super) key: u64,
    pub(super) value: u64,
    pub(super) flags: u64,
}

/// The head of `bpf_link_info`, for a link of type tcx, or xdp, of which the last field is none.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct RawLinkInfo {
    pub(super) kind: u32,
    pub(super) id: u32,
    pub(super) prog_id: u32,
    pub(super) pad: u32,
    pub(super) ifindex: u32,
    pub(super) attach_type: u32,
}

/// The head of `bpf_prog_info`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct RawProgInfo {
    pub(super) kind: u32,
    pub(super) id: u32,
    pub(super) tag: [u8; 8],
    pub(super) jited_len: u32,
    pub(super) xlated_len: u32,
    pub(super) jited: u64,
    pub(super) xlated: u64,
    pub(super) load_time: u64,
    pub(super) uid: u32,
    pub(super) map_count: u32,
    pub(super) map_ids: u64,
    pub(super) name: [u8; 16],
}

/// The head of `bpf_attr` for BPF_MAP_LOOKUP_BATCH.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct BatchAttr {
    pub(super) in_batch: u64,
    pub(super) out_batch: u64,
    pub(super) keys: u64,
    pub(super) values: u64,
    pub(super) count: u32,
    pub(super) map_fd: u32,
    pub(super) elem_flags: u64,
    pub(super) flags: u64,
}
