using System.Globalization;
using System.Text;
using MicroVm.Bus;
using MicroVm.Bus.Counters;
using MicroVm.InstructionEmulator;
using MicroVm.Jail;
using MicroVm.Kvm;
using MicroVm.Kvm.Native;
using MicroVm.Linux;
using MicroVm.VmmControl;
using static MicroVm.Kvm.Native.KvmAbi;

namespace MicroVm.Vmm.Machine;

/// <summary>
/// The thread of one vCPU: runs the guest and handles its exits, without allocating, until the machine ends. Owns the
/// vCPU. Where that comes later, the thread waits to create it.
/// </summary>
internal sealed class VcpuThread : ICounterSource, IDisposable
{
    private const int StackSize = 256 << 10;
    private const int ExitReasons = 48;

    // A page may have come back before it was looked for, or another vCPU was first.
    private const int MaxFaultsInVain = 16;
    private readonly VirtualMachine _machine;
    private readonly int _id;
    private readonly Thread _thread;
    private readonly long[] _exits = new long[ExitReasons];
    private readonly object _parkLock = new();
    private readonly ManualResetEventSlim _begun = new();
    private readonly ManualResetEventSlim _entered = new();

    // Null until the vCPU is created.
    private KvmVcpu? _vcpu;
    private Emulator? _assist;
    private Func<KvmVcpu>? _create;
    private Action<LinuxException?>? _onCreated;
    private bool _started;
    private bool _parkRequested;
    private bool _standsStill;
    private Action<KvmVcpu>? _work;
    private Exception? _workFailure;
    private int _parkEpoch;
    private int _reportedEpoch;
    private long _interrupted;
    private int _faultsInVain;

    /// <summary>A thread for a vCPU that is there.</summary>
    public VcpuThread(VirtualMachine machine, KvmVcpu vcpu)
        : this(machine, vcpu.Id) => Take(vcpu);

    /// <summary>A thread for a vCPU that comes later, if it does (<see cref="Create"/>).</summary>
    public VcpuThread(VirtualMachine machine, int id)
    {
        _machine = machine;
        _id = id;
        _thread = new Thread(Main, StackSize)
        {
            IsBackground = true,
            Name = string.Create(CultureInfo.InvariantCulture, $"vcpu{id}"),
        };
    }

    /// <summary>
    /// Starts the thread, which waits for <see cref="Enter"/>. What a thread does at its start is done on return: a filter may be
    /// turned on. Further calls do nothing.
    /// </summary>
    public void Start()
    {
        if (!_started)
        {
            _started = true;
            _thread.Start();
            _begun.Wait();
        }
    }

    /// <summary>Lets the thread leave itself no more than it needs, and run the guest.</summary>
    public void Enter() => _entered.Set();

    /// <summary>Makes the thread leave the guest and look at what is wanted of it.</summary>
    public void Kick() => _vcpu?.Kick();

    /// <summary>Has the waiting thread create its vCPU and run it.</summary>
    /// <param name="create">Creates it; called on the thread.</param>
    /// <param name="done">Gets null, or why it was not created: the thread then waits on. Called on the thread.</param>
    public void Create(Func<KvmVcpu> create, Action<LinuxException?> done)
    {
        lock (_parkLock)
        {
            (_create, _onCreated) = (create, done);
            Monitor.PulseAll(_parkLock);
        }
    }

    /// <summary>Makes the thread leave the guest, and wait until <see cref="RunOn"/>. The guest's kernel has taken the vCPU off line.</summary>
    public void StandStill() => SetStanding(true);

    /// <summary>Lets a thread run that was to stand still.</summary>
    public void RunOn() => SetStanding(false);

    /// <summary>Asks the thread to stop between two instructions; it calls <see cref="VirtualMachine.OnParked"/> when it has.</summary>
    public void Park()
    {
        lock (_parkLock)
        {
            _parkRequested = true;
            _parkEpoch++;
            Monitor.PulseAll(_parkLock);
        }

        Kick();
    }

    /// <summary>The vCPU; for who knows that it is created and its thread does not run.</summary>
    public KvmVcpu Vcpu => _vcpu!;

    /// <summary>Has the parked thread do something with its vCPU, and waits for it.</summary>
    /// <exception cref="LinuxException">What the work throws is thrown here.</exception>
    public void RunParked(Action<KvmVcpu> work)
    {
        lock (_parkLock)
        {
            (_work, _workFailure) = (work, null);
            Monitor.PulseAll(_parkLock);
            while (_work is not null)
            {
                Monitor.Wait(_parkLock);
            }

            if (_workFailure is not null)
            {
                System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(_workFailure);
            }
        }
    }

    /// <summary>Lets a parked thread run on, unless it is to stand still.</summary>
    public void Unpark()
    {
        lock (_parkLock)
        {
            _parkRequested = false;
            Monitor.PulseAll(_parkLock);
        }
    }

    /// <summary>Lets the thread see that the machine is ending, whatever it waits for.</summary>
    public void Release()
    {
        Unpark();
        RunOn();
        Kick();
    }

    /// <summary>Waits for the thread's end, at most this long; true at once when it was never started.</summary>
    public bool Join(int milliseconds) => !_started || _thread.Join(milliseconds);

    public void CollectCounters(Action<string, long> add)
    {
        Span<long> exits = _exits;
        add("exits.io", exits[(int)KVM_EXIT_IO]);
        add("exits.mmio", exits[(int)KVM_EXIT_MMIO]);
        add("exits.hlt", exits[(int)KVM_EXIT_HLT]);
        add("exits.internal_error", exits[(int)KVM_EXIT_INTERNAL_ERROR]);
        add("exits.interrupted", Volatile.Read(ref _interrupted));
        long other = -exits[(int)KVM_EXIT_IO] - exits[(int)KVM_EXIT_MMIO] - exits[(int)KVM_EXIT_HLT] - exits[(int)KVM_EXIT_INTERNAL_ERROR];
        foreach (long n in exits)
        {
            other += n;
        }

        add("exits.other", other);
        _assist?.CollectCounters(add);
    }

    public void Dispose() => _vcpu?.Dispose();

    private void Main()
    {
        JailedThread.Name(_thread.Name!);
        _begun.Set();
        _entered.Wait();
        if (_machine.IsEnding)
        {
            return;
        }

        try
        {
            Run();
        }
        catch (Exception e) when (e is IOException or InvalidOperationException or ArgumentException)
        {
            Fail(e.Message);
        }

        _vcpu?.DetachThread();
    }

    private void Run()
    {
        if (_vcpu is null)
        {
            SystemCallFilter.Narrow(ThreadKind.SpareVcpu);
            if (!AwaitVcpu())
            {
                return;
            }
        }
        else if (_id == 0)
        {
            _machine.OnFirstRun();
        }

        SystemCallFilter.Narrow(ThreadKind.Vcpu);
        StandWhileParked();
        while (!_machine.IsEnding && RunOnce())
        {
        }
    }

    /// <summary>Waits until the vCPU is wanted, and creates it; false when the machine ends.</summary>
    private bool AwaitVcpu()
    {
        while (true)
        {
            (Func<KvmVcpu> create, Action<LinuxException?> done) wanted;
            lock (_parkLock)
            {
                while (_create is null && !_machine.IsEnding)
                {
                    Monitor.Wait(_parkLock);
                }

                if (_machine.IsEnding)
                {
                    return false;
                }

                wanted = (_create!, _onCreated!);
                (_create, _onCreated) = (null, null);
            }

            try
            {
                Take(wanted.create());
                wanted.done(null);
                return true;
            }
            catch (LinuxException e)
            {
                wanted.done(e);
            }
        }
    }

    private void Take(KvmVcpu vcpu)
    {
        _assist = new Emulator(vcpu, _machine.Memory);
        _vcpu = vcpu;
    }

    private bool RunOnce()
    {
        Errno result = _vcpu!.Run();
        if (result != Errno.OK)
        {
            return OnInterrupted(result);
        }

        _faultsInVain = 0;
        uint reason = _vcpu.ExitReason;
        _exits[Math.Min(reason, ExitReasons - 1)]++;
        switch (reason)
        {
            case KVM_EXIT_IO:
                OnIo();
                return true;
            case KVM_EXIT_MMIO:
                OnMmio();
                return true;
            case KVM_EXIT_HLT:
            case KVM_EXIT_INTR:
            case KVM_EXIT_IRQ_WINDOW_OPEN:
                return true;
            case KVM_EXIT_SHUTDOWN:
                _machine.End(VmmExitCode.TripleFault);
                return false;
            case KVM_EXIT_SYSTEM_EVENT:
                return OnSystemEvent();
            case KVM_EXIT_INTERNAL_ERROR:
                return OnInternalError();
            case KVM_EXIT_FAIL_ENTRY:
                return Fail($"KVM could not enter the guest (hardware reason {_vcpu.State.fail_entry.hardware_entry_failure_reason:x})");
            default:
                return Fail($"KVM stopped with exit reason {reason}, which this VMM does not know");
        }
    }

    private bool OnInterrupted(Errno result)
    {
        switch (result)
        {
            case Errno.EAGAIN:
                return true;
            case Errno.EINTR:
                Volatile.Write(ref _interrupted, _interrupted + 1);
                _vcpu!.ImmediateExit = false;

                // A kick stores its wish before the flag that was just cleared, so that it is seen below, or kicks again.
                Interlocked.MemoryBarrier();
                StandWhileParked();
                return true;
            case Errno.EFAULT:
                return OnMissingPage();
            default:
                return Fail($"KVM_RUN: {LinuxException.Text(result)} ({result})");
        }
    }

    private bool OnMissingPage()
    {
        if (_machine.TryRepairMemory())
        {
            _faultsInVain = 0;
            return true;
        }

        Thread.Yield();
        return ++_faultsInVain < MaxFaultsInVain
            || Fail("the guest touched memory that its backing file does not hold (the file system of a mapped file is full or fails, an image was truncated, or the host is out of memory)");
    }

    private void StandWhileParked()
    {
        lock (_parkLock)
        {
            while (_parkRequested || _standsStill)
            {
                // A thread that is asked to park again before it woke from the last time reports again.
                if (_parkRequested && _reportedEpoch != _parkEpoch)
                {
                    _reportedEpoch = _parkEpoch;
                    _machine.OnParked();
                }

                if (_work is { } work)
                {
                    Work(work);
                    continue;
                }

                Monitor.Wait(_parkLock);
            }
        }
    }

    private void SetStanding(bool still)
    {
        lock (_parkLock)
        {
            if (_standsStill == still)
            {
                return;
            }

            _standsStill = still;
            Monitor.PulseAll(_parkLock);
        }

        Kick();
    }

    private void Work(Action<KvmVcpu> work)
    {
        try
        {
            work(_vcpu!);
        }
        catch (Exception e) when (e is IOException or InvalidOperationException or ArgumentException)
        {
            _workFailure = e;
        }

        _work = null;
        Monitor.PulseAll(_parkLock);
    }

    private void OnIo()
    {
        ref kvm_run run = ref _vcpu!.State;
        int size = run.io.size;
        bool write = run.io.direction == KVM_EXIT_IO_OUT;
        ushort port = run.io.port;
        Span<byte> data = _vcpu.IoData;
        for (; data.Length >= size && size > 0; data = data[size..])
        {
            if (write)
            {
                _machine.Pio.Write(port, data[..size]);
            }
            else
            {
                _machine.Pio.Read(port, data[..size]);
            }
        }
    }

    private void OnMmio()
    {
        ref kvm_run run = ref _vcpu!.State;
        if (run.mmio.is_write != 0)
        {
            _machine.Mmio.Write(run.mmio.phys_addr, _vcpu.MmioData);
        }
        else
        {
            _machine.Mmio.Read(run.mmio.phys_addr, _vcpu.MmioData);
        }
    }

    private bool OnSystemEvent()
    {
        uint type = _vcpu!.State.system_event.type;
        switch (type)
        {
            case KVM_SYSTEM_EVENT_SHUTDOWN:
                _machine.End(VmmExitCode.PoweredOff);
                return false;
            case KVM_SYSTEM_EVENT_RESET:
            case KVM_SYSTEM_EVENT_CRASH:
                _machine.End(VmmExitCode.Reset);
                return false;
            default:
                return Fail($"KVM reported system event {type}, which this VMM does not know");
        }
    }

    private bool OnInternalError() =>
        _assist!.TryComplete(out string? failure) == AssistResult.Completed
        || Fail(failure ?? $"KVM reported internal error {_vcpu!.State.@internal.suberror}");

    private bool Fail(string what)
    {
        StringBuilder text = new(what);
        try
        {
            if (_vcpu is null)
            {
                _machine.End(VmmExitCode.GuestError, what);
                return false;
            }

            _vcpu.GetRegs(out kvm_regs regs);
            _vcpu.GetSregs(out kvm_sregs sregs);
            text.Append(CultureInfo.InvariantCulture, $"; vCPU {_id} at RIP {regs.rip:x}, CPL {sregs.cs.selector & 3}, CR0 {sregs.cr0:x}, CR2 {sregs.cr2:x}, CR3 {sregs.cr3:x}, CR4 {sregs.cr4:x}");
        }
        catch (LinuxException)
        {
            // The vCPU is beyond being asked; what is known already is reported.
        }

        _machine.End(VmmExitCode.GuestError, text.ToString());
        return false;
    }
}
