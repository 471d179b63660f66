namespace MicroVm.Kvm.Native;

#pragma warning disable CS1591 // named and documented by asm/kvm.h

/// <summary>Exceptions, interrupts, NMIs and SMIs that are pending or being delivered.</summary>
public unsafe struct kvm_vcpu_events
{
    public exception_state exception;
    public interrupt_state interrupt;
    public nmi_state nmi;
    public uint sipi_vector;
    public uint flags;
    public smi_state smi;
    public triple_fault_state triple_fault;
    public fixed byte reserved[26];
    public byte exception_has_payload;
    public ulong exception_payload;

    public struct exception_state
    {
        public byte injected;
        public byte nr;
        public byte has_error_code;
        public byte pending;
        public uint error_code;
    }

    public struct interrupt_state
    {
        public byte injected;
        public byte nr;
        public byte soft;
        public byte shadow;
    }

    public struct nmi_state
    {
        public byte injected;
        public byte pending;
        public byte masked;
        public byte pad;
    }

    public struct smi_state
    {
        public byte smm;
        public byte pending;
        public byte smm_inside_nmi;
        public byte latched_init;
    }

    public struct triple_fault_state
    {
        public byte pending;
    }
}
