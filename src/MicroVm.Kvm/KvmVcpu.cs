using System.Runtime.CompilerServices;
using MicroVm.Kvm.Native;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using static MicroVm.Kvm.Native.KvmAbi;

namespace MicroVm.Kvm;

/// <summary>A vCPU: runs guest code on the calling thread, and gives its registers. Owns descriptor and shared page.</summary>
/// <remarks>
/// One thread runs a vCPU and calls its methods; only <see cref="Kick"/> may come from another. The pointer behind
/// <see cref="State"/> is valid until <see cref="Dispose"/>, which that thread calls or which follows its end.
/// Every call throws <see cref="LinuxException"/> when KVM refuses it, and allocates nothing otherwise.
/// </remarks>
public sealed unsafe partial class KvmVcpu : IDisposable
{
    private readonly SafeFd _fd;
    private readonly RunMapping _mapping;
    private readonly kvm_run* _run;
    private readonly ulong _syncFields;
    private int _threadId;

    internal KvmVcpu(SafeFd fd, int id, int mmapSize, int xsaveSize, ulong syncFields)
    {
        _fd = fd;
        Id = id;
        XsaveSize = Math.Max(xsaveSize, sizeof(kvm_xsave));
        _hasXsave2 = xsaveSize > 0;
        _syncFields = syncFields;
        _mapping = new RunMapping(fd, mmapSize);
        _run = _mapping.Pointer;
        ThreadKick.Install();
    }

    /// <summary>The vCPU's number and APIC id.</summary>
    public int Id { get; }

    /// <summary>The page shared with KVM: the exit and its data. KVM writes it only within <see cref="Run"/>.</summary>
    public ref kvm_run State => ref *_run;

    /// <summary>Why the last <see cref="Run"/> ended, when it returned <see cref="Errno.OK"/>: KVM_EXIT_*.</summary>
    public uint ExitReason => _run->exit_reason;

    /// <summary>
    /// The data of a KVM_EXIT_IO: size times count bytes, read for OUT and to be filled for IN before the next run. Empty
    /// when KVM gave an offset outside the mapping.
    /// </summary>
    public Span<byte> IoData
    {
        get
        {
            ulong length = (ulong)_run->io.size * _run->io.count;
            ulong offset = _run->io.data_offset;
            ulong size = (ulong)_mapping.Length;
            return offset <= size && length <= size - offset ? new Span<byte>((byte*)_run + offset, (int)length) : default;
        }
    }

    /// <summary>The data of a KVM_EXIT_MMIO: 1 to 8 bytes, read for a write and to be filled for a read before the next run.</summary>
    public Span<byte> MmioData => new(_run->mmio.data, (int)Math.Min(_run->mmio.len, 8));

    /// <summary>
    /// Runs the guest on this thread until it exits. <see cref="Errno.OK"/>: see <see cref="ExitReason"/>.
    /// <see cref="Errno.EINTR"/>: kicked or <see cref="ImmediateExit"/> was set; the state is complete, run again.
    /// <see cref="Errno.EAGAIN"/>: an application processor that waits for its start-up was woken. Other errors (EFAULT:
    /// the guest touched a page that its backing file lacks) are the VM's end.
    /// </summary>
    public Errno Run()
    {
        if (_threadId == 0)
        {
            Volatile.Write(ref _threadId, ThreadKick.CurrentThreadId);
        }

        return Libc.ioctl(_fd.Value, KVM_RUN, (nint)0) >= 0 ? Errno.OK : Check.LastErrno;
    }

    /// <summary>
    /// Makes the next <see cref="Run"/> return EINTR at once, after it has completed what the last exit left open (the
    /// result of an IN or an MMIO read): the way to a consistent state before reading registers.
    /// </summary>
    public bool ImmediateExit
    {
        get => Volatile.Read(ref _run->immediate_exit) != 0;
        set => Volatile.Write(ref _run->immediate_exit, value ? (byte)1 : (byte)0);
    }

    /// <summary>
    /// From any thread: makes the running or next <see cref="Run"/> return EINTR. Stays in force until the vCPU's thread
    /// clears <see cref="ImmediateExit"/>; it then looks for what it was wanted for.
    /// </summary>
    /// <remarks>
    /// The flag is stored before the signal is sent: a thread that is in KVM_RUN is interrupted by the signal, one that
    /// is about to enter it sees the flag there.
    /// </remarks>
    public void Kick()
    {
        ImmediateExit = true;
        Interlocked.MemoryBarrier();
        int thread = Volatile.Read(ref _threadId);
        if (thread != 0)
        {
            ThreadKick.Signal(thread);
        }
    }

    /// <summary>Forgets the thread that runs this vCPU; called by that thread as its last act, so that no other is signalled.</summary>
    public void DetachThread() => Volatile.Write(ref _threadId, 0);

    /// <summary>
    /// Asks KVM to keep these registers (KVM_SYNC_X86_*) in <see cref="SyncRegs"/> at each exit; false, with nothing
    /// changed, when the host cannot (KVM_CAP_SYNC_REGS).
    /// </summary>
    public bool TrySetSyncRegs(ulong fields)
    {
        if ((_syncFields & fields) != fields)
        {
            return false;
        }

        _run->kvm_valid_regs = fields;
        return true;
    }

    /// <summary>The registers chosen by <see cref="TrySetSyncRegs"/>, as of the last exit.</summary>
    public ref kvm_sync_regs SyncRegs => ref _run->s.regs;

    /// <summary>Which of <see cref="SyncRegs"/> were changed here and are loaded by the next <see cref="Run"/>; KVM clears it.</summary>
    public ulong DirtySyncRegs
    {
        get => _run->kvm_dirty_regs;
        set => _run->kvm_dirty_regs = value;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _mapping.Dispose();
        _fd.Dispose();
    }
}
