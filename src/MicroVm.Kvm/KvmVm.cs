using MicroVm.Kvm.Native;
using MicroVm.Linux;
using static MicroVm.Kvm.Native.KvmAbi;

namespace MicroVm.Kvm;

/// <summary>A VM: memslots, interrupt controller, clock. Owns its descriptor; vCPUs hold it open in the kernel too.</summary>
/// <remarks>Every call throws <see cref="LinuxException"/> when KVM refuses it, and allocates nothing otherwise.</remarks>
public sealed unsafe partial class KvmVm : IDisposable
{
    private readonly SafeFd _fd;
    private readonly KvmSystem _system;
    private int? _xsaveSize;
    private ulong? _syncFields;

    internal KvmVm(SafeFd fd, KvmSystem system)
    {
        _fd = fd;
        _system = system;
    }

    /// <summary>KVM_CHECK_EXTENSION on this VM, whose answer may differ from the system's.</summary>
    public int CheckExtension(uint capability) => KvmIoctl.Call(_fd, KVM_CHECK_EXTENSION, (nint)capability);

    /// <summary>Creates or changes a memslot.</summary>
    /// <param name="slot">Slot number, less than KVM_CAP_NR_MEMSLOTS.</param>
    /// <param name="gpa">First guest physical address; page-aligned.</param>
    /// <param name="size">Bytes, a multiple of the page size; 0 deletes the slot.</param>
    /// <param name="hva">First address of the backing mapping, which must outlive the slot.</param>
    /// <param name="flags">KVM_MEM_READONLY (guest writes become MMIO exits), KVM_MEM_LOG_DIRTY_PAGES.</param>
    public void SetMemoryRegion(uint slot, ulong gpa, ulong size, nint hva, uint flags = 0)
    {
        kvm_userspace_memory_region region = new()
        {
            slot = slot,
            flags = flags,
            guest_phys_addr = gpa,
            memory_size = size,
            userspace_addr = (ulong)hva,
        };
        KvmIoctl.Call(_fd, KVM_SET_USER_MEMORY_REGION, ref region);
    }

    /// <summary>Fetches and clears a slot's dirty bitmap: one bit per page, rounded up to 64.</summary>
    public void GetDirtyLog(uint slot, Span<ulong> bitmap)
    {
        fixed (ulong* p = bitmap)
        {
            kvm_dirty_log log = new() { slot = slot, dirty_bitmap = p };
            KvmIoctl.Call(_fd, KVM_GET_DIRTY_LOG, ref log);
        }
    }

    /// <summary>Gives Intel hosts three pages for a task state segment; below 4 GiB and in no memslot.</summary>
    public void SetTssAddress(uint gpa) => KvmIoctl.Call(_fd, KVM_SET_TSS_ADDR, (nint)gpa);

    /// <summary>Gives Intel hosts a page for an identity map; in no memslot, set before the first vCPU.</summary>
    public void SetIdentityMapAddress(ulong gpa) => KvmIoctl.Call(_fd, KVM_SET_IDENTITY_MAP_ADDR, ref gpa);

    /// <summary>Creates a vCPU.</summary>
    /// <param name="id">APIC id; less than KVM_CAP_MAX_VCPUS.</param>
    public KvmVcpu CreateVcpu(int id)
    {
        SafeFd fd = new(KvmIoctl.Call(_fd, KVM_CREATE_VCPU, id));
        try
        {
            // Asked once: a vCPU that comes later is made by a thread that may not ask.
            _xsaveSize ??= CheckExtension(KVM_CAP_XSAVE2);
            _syncFields ??= (ulong)CheckExtension(KVM_CAP_SYNC_REGS);
            return new KvmVcpu(fd, id, _system.VcpuMmapSize, _xsaveSize.Value, _syncFields.Value);
        }
        catch
        {
            fd.Dispose();
            throw;
        }
    }

    /// <summary>KVM's clock of this guest, in nanoseconds, with the flags and host times that came with it.</summary>
    public void GetClock(out kvm_clock_data clock)
    {
        clock = default;
        KvmIoctl.Call(_fd, KVM_GET_CLOCK, ref clock);
    }

    /// <summary>Sets KVM's clock; flags may hold KVM_CLOCK_REALTIME where the host knows it.</summary>
    public void SetClock(in kvm_clock_data clock)
    {
        kvm_clock_data copy = clock;
        KvmIoctl.Call(_fd, KVM_SET_CLOCK, ref copy);
    }

    /// <summary>Enables a capability of the VM with up to four arguments.</summary>
    public void EnableCap(uint capability, ulong argument0 = 0, ulong argument1 = 0, ulong argument2 = 0, ulong argument3 = 0)
    {
        kvm_enable_cap cap = new() { cap = capability };
        cap.args[0] = argument0;
        cap.args[1] = argument1;
        cap.args[2] = argument2;
        cap.args[3] = argument3;
        KvmIoctl.Call(_fd, KVM_ENABLE_CAP, ref cap);
    }

    /// <inheritdoc/>
    public void Dispose() => _fd.Dispose();
}
