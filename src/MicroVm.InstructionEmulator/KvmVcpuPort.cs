using MicroVm.Kvm;
using MicroVm.Kvm.Native;
using MicroVm.Linux;

namespace MicroVm.InstructionEmulator;

/// <summary>
/// <see cref="IVcpuPort"/> of a KVM vCPU. Registers come with the exit and go with the next entry where the host can
/// (KVM_CAP_SYNC_REGS), which spares four system calls for each instruction.
/// </summary>
/// <remarks>
/// Registers are asked to come with the exit only once the first instruction has needed it, so hosts that never do pay
/// nothing. After <see cref="Commit"/> the changes reach KVM at the next Run; who reads registers by other means first
/// makes one with <see cref="KvmVcpu.ImmediateExit"/> set.
/// </remarks>
internal sealed class KvmVcpuPort(KvmVcpu vcpu) : IVcpuPort
{
    private const ulong Synced = KvmAbi.KVM_SYNC_X86_REGS | KvmAbi.KVM_SYNC_X86_SREGS;
    private const ulong PageGlobalEnable = 1 << 7;
    private kvm_regs _regs;
    private kvm_sregs _sregs;
    private bool _triedSync;
    private bool _sync;
    private bool _local;
    private bool _sregsChanged;

    public ref kvm_regs Regs
    {
        get
        {
            if (_local)
            {
                return ref _regs;
            }

            return ref vcpu.SyncRegs.regs;
        }
    }

    public ref kvm_sregs Sregs
    {
        get
        {
            if (_local)
            {
                return ref _sregs;
            }

            return ref vcpu.SyncRegs.sregs;
        }
    }

    public int XsaveSize => vcpu.XsaveSize;

    public ulong Xcr0
    {
        get
        {
            vcpu.GetXcrs(out kvm_xcrs xcrs);
            for (int i = 0; i < Math.Min(xcrs.nr_xcrs, KvmAbi.KVM_MAX_XCRS); i++)
            {
                if (xcrs.xcrs[i].xcr == 0)
                {
                    return xcrs.xcrs[i].value;
                }
            }

            return 1;
        }
    }

    public void Begin()
    {
        _sregsChanged = false;
        _local = !_sync;
        if (_local)
        {
            vcpu.GetRegs(out _regs);
            vcpu.GetSregs(out _sregs);
            if (!_triedSync)
            {
                _triedSync = true;
                _sync = vcpu.TrySetSyncRegs(Synced);
            }
        }
    }

    public void MarkSregsChanged() => _sregsChanged = true;

    public void Commit()
    {
        if (!_local)
        {
            vcpu.DirtySyncRegs |= KvmAbi.KVM_SYNC_X86_REGS | (_sregsChanged ? KvmAbi.KVM_SYNC_X86_SREGS : 0);
            return;
        }

        if (_sregsChanged)
        {
            vcpu.SetSregs(in _sregs);
        }

        vcpu.SetRegs(in _regs);
    }

    public void GetXsave(Span<byte> area) => vcpu.GetXsave(area);

    public bool TrySetXsave(ReadOnlySpan<byte> area)
    {
        try
        {
            vcpu.SetXsave(area);
            return true;
        }
        catch (LinuxException e) when (e.Errno == Errno.EINVAL)
        {
            return false;
        }
    }

    public bool TrySetXcr0(ulong value)
    {
        kvm_xcrs xcrs = new() { nr_xcrs = 1 };
        xcrs.xcrs[0] = new kvm_xcr { value = value };
        try
        {
            vcpu.SetXcrs(in xcrs);
            return true;
        }
        catch (LinuxException e) when (e.Errno == Errno.EINVAL)
        {
            return false;
        }
    }

    public bool TryGetMsr(uint index, out ulong value)
    {
        Span<kvm_msr_entry> entry = [new kvm_msr_entry { index = index }];
        bool known = vcpu.GetMsrs(entry) == 1;
        value = entry[0].data;
        return known;
    }

    public void InjectException(byte vector, uint? errorCode)
    {
        vcpu.GetVcpuEvents(out kvm_vcpu_events events);
        events.exception.injected = 1;
        events.exception.pending = 0;
        events.exception.nr = vector;
        events.exception.has_error_code = errorCode is null ? (byte)0 : (byte)1;
        events.exception.error_code = errorCode ?? 0;
        events.flags &= ~KvmAbi.KVM_VCPUEVENT_VALID_PAYLOAD;
        vcpu.SetVcpuEvents(in events);
    }

    public void InjectSoftwareInterrupt(byte vector)
    {
        vcpu.GetVcpuEvents(out kvm_vcpu_events events);
        events.interrupt.injected = 1;
        events.interrupt.nr = vector;
        events.interrupt.soft = 1;
        vcpu.SetVcpuEvents(in events);
    }

    public void SetDr6(ulong bits)
    {
        vcpu.GetDebugregs(out kvm_debugregs debugregs);
        debugregs.dr6 |= bits;
        vcpu.SetDebugregs(in debugregs);
    }

    public void FlushTlb()
    {
        // A change of CR4.PGE makes KVM drop every translation; the second call restores the guest's value.
        kvm_sregs sregs = Sregs;
        sregs.cr4 ^= PageGlobalEnable;
        vcpu.SetSregs(in sregs);
        sregs.cr4 ^= PageGlobalEnable;
        vcpu.SetSregs(in sregs);
    }
}
