using System.Diagnostics;
using System.Runtime.Intrinsics.X86;
using MicroVm.Bus;
using MicroVm.Bus.Counters;
using MicroVm.InstructionEmulator;
using MicroVm.Jail;
using MicroVm.Kvm;
using MicroVm.Kvm.Native;
using MicroVm.Linux;
using MicroVm.Linux.Tracing;
using MicroVm.Memory;
using MicroVm.Virtio;
using MicroVm.Virtio.Mmio;
using MicroVm.Vmm.Boot;
using MicroVm.Vmm.Serial;
using MicroVm.VmmControl;

namespace MicroVm.Vmm.Machine;

/// <summary>
/// A virtual machine: memory, interrupt controller, buses, devices and vCPUs. Made by <see cref="MachineBuilder"/>, run
/// once by <see cref="Run"/> on the thread that becomes the device thread, then disposed.
/// </summary>
public sealed class VirtualMachine : IPowerEvents, ICounterSource, IDisposable
{
    private const int NotEnded = -1;
    private const int JoinMilliseconds = 2000;
    private const int ParkMilliseconds = 1000;
    private readonly List<VcpuThread> _vcpus = [];
    private readonly List<VcpuThread> _spares = [];
    private readonly List<MmioTransport> _transports = [];
    private int _endCode = NotEnded;
    private int _parked;
    private bool _paused;
    private Action? _onPaused;
    private long _firstRun;
    private uint _memorySlots;
    private IGuestWindow[] _windows = [];
    private ulong _reservedEnd;

    internal VirtualMachine(KvmSystem kvm, KvmVm vm, GuestMemory memory, EventLoop loop)
    {
        Kvm = kvm;
        Vm = vm;
        Memory = memory;
        Loop = loop;
        Routing = new KvmEventRouting(vm);
    }

    /// <summary>The guest's RAM.</summary>
    public GuestMemory Memory { get; }

    /// <summary>The device thread's loop.</summary>
    public EventLoop Loop { get; }

    /// <summary>What kind of KVM the host has.</summary>
    public HostKind HostKind { get; internal set; } = HostKind.Standard;

    /// <summary>The whole command line that the kernel was given.</summary>
    public string CommandLine { get; internal set; } = "";

    /// <summary>The devices' windows, in the order of their addresses.</summary>
    public IReadOnlyList<MmioTransport> Transports => _transports;

    /// <summary>Value of <see cref="Stopwatch.GetTimestamp"/> just before the first KVM_RUN; 0 before that.</summary>
    public long FirstRunTimestamp => Volatile.Read(ref _firstRun);

    /// <summary>Why the machine ended, once <see cref="Run"/> has returned; null when its exit code tells it all.</summary>
    public string? EndReason { get; private set; }

    /// <summary>True between <see cref="Pause"/> and <see cref="Resume"/>.</summary>
    public bool IsPaused => _paused;

    /// <summary>What CPUID tells the guest: one of <see cref="CpuTemplateNames"/>.</summary>
    public string CpuTemplate { get; internal set; } = CpuTemplateNames.Host;

    /// <summary>The vCPUs by their numbers.</summary>
    internal IReadOnlyList<VcpuThread> Vcpus => _vcpus;

    /// <summary>Makes vCPUs, at the start and later.</summary>
    internal VcpuFactory? VcpuFactory { get; set; }

    /// <summary>Adds vCPUs while the VM runs, and has them stand still; null where it keeps those that it starts with.</summary>
    internal VcpuGrowth? Growth { get; private set; }

    /// <summary>The MSRs that are saved; null where the machine is not to be saved.</summary>
    internal uint[]? StateMsrs { get; set; }

    /// <summary>The steps of the VMM's start.</summary>
    internal StepRecorder Trace { get; init; } = StepRecorder.Off;

    internal KvmSystem Kvm { get; }

    internal KvmVm Vm { get; }

    internal KvmEventRouting Routing { get; }

    internal AddressBus Pio { get; } = new("pio");

    internal AddressBus Mmio { get; } = new("mmio");

    internal Uart16550? Serial { get; set; }

    internal bool IsEnding => Volatile.Read(ref _endCode) != NotEnded;

    /// <summary>
    /// Makes all threads that the machine will ever have; they wait. Called before the system call filter is turned on; otherwise
    /// <see cref="Run"/> does it.
    /// </summary>
    public void StartThreads()
    {
        foreach (MmioTransport transport in _transports)
        {
            transport.Device.StartThreads();
        }

        foreach (VcpuThread vcpu in _vcpus.Concat(_spares))
        {
            vcpu.Start();
        }
    }

    /// <summary>
    /// Leaves the devices' threads, the runtime's and the calling one, which becomes the device thread, no more than they need; vCPUs
    /// do it themselves. Called once the filter is on.
    /// </summary>
    /// <exception cref="LinuxException">The kernel refuses a filter.</exception>
    public void NarrowThreads()
    {
        foreach (MmioTransport transport in _transports)
        {
            transport.Device.NarrowThreads();
        }

        RuntimeThreads.Narrow();
        SystemCallFilter.Narrow(ThreadKind.Device);
    }

    /// <summary>
    /// Runs the guest until it ends, or <see cref="End"/> is called; the calling thread serves the devices meanwhile.
    /// </summary>
    /// <returns>How it ended.</returns>
    public VmmExitCode Run()
    {
        // A guest may set a device up with its first instructions, and that is the device thread's work.
        Loop.Claim();
        StartThreads();
        foreach (VcpuThread vcpu in _vcpus.Concat(_spares))
        {
            vcpu.Enter();
        }

        Loop.Run();
        StopVcpus();
        return (VmmExitCode)Volatile.Read(ref _endCode);
    }

    /// <summary>Ends the machine; the first call decides how. Any thread may call it.</summary>
    /// <param name="code">How it ended.</param>
    /// <param name="reason">Why, when the code does not tell it all.</param>
    public void End(VmmExitCode code, string? reason = null)
    {
        if (Interlocked.CompareExchange(ref _endCode, (int)code, NotEnded) == NotEnded)
        {
            EndReason = reason;
            Loop.Stop();
        }
    }

    /// <inheritdoc/>
    public void PowerOff() => End(VmmExitCode.PoweredOff);

    /// <inheritdoc/>
    public void Reset() => End(VmmExitCode.Reset);

    /// <summary>
    /// Stops the vCPUs between two instructions and then calls <paramref name="done"/>. Device thread only. It does not
    /// wait: a vCPU may itself be waiting for the device thread.
    /// </summary>
    /// <returns>False when a pause is under way already, or a vCPU is being created.</returns>
    public bool Pause(Action done)
    {
        ArgumentNullException.ThrowIfNull(done);
        if (_onPaused is not null || Growth is { IsUnderWay: true })
        {
            return false;
        }

        if (_paused)
        {
            done();
            return true;
        }

        _paused = true;
        _onPaused = done;
        _parked = 0;
        foreach (VcpuThread vcpu in _vcpus)
        {
            vcpu.Park();
        }

        return true;
    }

    /// <summary>Lets the vCPUs run on. Device thread only.</summary>
    /// <returns>False while a pause is still under way.</returns>
    public bool Resume()
    {
        if (_onPaused is not null)
        {
            return false;
        }

        _paused = false;
        foreach (VcpuThread vcpu in _vcpus)
        {
            vcpu.Unpark();
        }

        return true;
    }

    /// <inheritdoc/>
    public void CollectCounters(Action<string, long> add)
    {
        ArgumentNullException.ThrowIfNull(add);
        Dictionary<string, long> sums = [];
        foreach (VcpuThread vcpu in _vcpus)
        {
            vcpu.CollectCounters((name, value) => sums[name] = sums.GetValueOrDefault(name) + value);
        }

        foreach ((string name, long value) in sums)
        {
            add(name, value);
        }

        add("vcpus.running", Growth?.Running ?? _vcpus.Count);
        add("vcpus.possible", Growth?.Possible ?? _vcpus.Count);

        Pio.CollectCounters(add);
        Mmio.CollectCounters(add);
        Serial?.CollectCounters(add);
        foreach (MmioTransport transport in _transports)
        {
            transport.CollectCounters(add);
        }
    }

    /// <summary>
    /// Stops and closes the devices, then the VM and its memory. A device whose request the host has not finished within a second
    /// keeps all of that, until the process ends.
    /// </summary>
    public void Dispose()
    {
        _ = Interlocked.CompareExchange(ref _endCode, (int)VmmExitCode.Stopped, NotEnded);
        bool idle = true;
        foreach (VcpuThread vcpu in _vcpus.Concat(_spares))
        {
            vcpu.Enter();
            vcpu.Release();
            idle &= vcpu.Join(ParkMilliseconds);
        }

        foreach (MmioTransport transport in _transports)
        {
            if (transport.Device.TryPark(ParkMilliseconds))
            {
                transport.Dispose();
            }
            else
            {
                idle = false;
            }
        }

        if (!idle)
        {
            return;
        }

        Serial?.Dispose();
        foreach (VcpuThread vcpu in _vcpus.Concat(_spares))
        {
            vcpu.Dispose();
        }

        Vm.Dispose();
        Kvm.Dispose();
        Loop.Dispose();
        Memory.Dispose();
    }

    internal void AddVcpu(KvmVcpu vcpu) => _vcpus.Add(new VcpuThread(this, vcpu));

    /// <summary>Makes the threads of vCPUs that may come later; all others are there already.</summary>
    /// <param name="possible">How many vCPUs there may be in all.</param>
    internal void AddSpareVcpus(int possible)
    {
        for (int id = _vcpus.Count; id < possible; id++)
        {
            _spares.Add(new VcpuThread(this, id));
        }

        Growth = new VcpuGrowth(this, possible);
    }

    /// <summary>Has the next spare thread create its vCPU. Device thread.</summary>
    /// <param name="done">Gets null, or why KVM refused; on that thread.</param>
    internal void CreateNextVcpu(Action<LinuxException?> done)
    {
        int id = _vcpus.Count;
        VcpuFactory factory = VcpuFactory!;
        _spares[0].Create(() => factory.CreateLater(id), done);
    }

    /// <summary>What <see cref="CreateNextVcpu"/> created is one of <see cref="Vcpus"/> from now on. Device thread.</summary>
    internal void CountNextVcpu()
    {
        _vcpus.Add(_spares[0]);
        _spares.RemoveAt(0);
    }

    /// <summary>What the CPUID of a vCPU is set to.</summary>
    internal ReadOnlySpan<kvm_cpuid_entry2> CpuidOf(int vcpu) => VcpuFactory!.CpuidOf(vcpu);

    /// <summary>Puts <paramref name="device"/>, which is taken over, into the next free window.</summary>
    internal MmioTransport AddDevice(VirtioDevice device)
    {
        int slot = _transports.Count;
        ulong gpa = BootLayout.VirtioMmio + ((ulong)slot * MmioRegister.WindowLength);
        MmioTransport transport = new(device, Memory, Loop, Routing, gpa, BootLayout.FirstVirtioGsi + (uint)slot);
        Mmio.Add(gpa, MmioRegister.WindowLength, transport);
        _transports.Add(transport);
        return transport;
    }

    /// <summary>Shows memory of this process to the guest, which must stay mapped until the vCPUs have ended.</summary>
    internal void AddMemory(ulong gpa, ulong length, nint hva, bool readOnly = false) =>
        Vm.SetMemoryRegion(_memorySlots++, gpa, length, hva, readOnly ? KvmAbi.KVM_MEM_READONLY : 0);

    /// <summary>Has <paramref name="window"/> asked when a vCPU touched a page that is not there. Before the guest runs.</summary>
    internal void AddWindow(IGuestWindow window) => _windows = [.. _windows, window];

    /// <summary>A vCPU touched a page that is not there: has the windows put pages where some got lost. Any thread.</summary>
    /// <returns>False when none had.</returns>
    internal bool TryRepairMemory()
    {
        bool repaired = false;
        foreach (IGuestWindow window in _windows)
        {
            repaired |= window.TryRepair();
        }

        return repaired;
    }

    /// <summary>Shows a piece of RAM to the guest.</summary>
    internal void AddMemory(in GuestRegion ram) => AddMemory(ram.Gpa, ram.Length, ram.Hva);

    /// <summary>Takes guest physical addresses behind RAM and the devices' windows, in no e820 entry.</summary>
    /// <exception cref="ConfigException">There are not so many addresses.</exception>
    internal ulong ReserveMemory(ulong length, ulong alignment)
    {
        ulong start = Math.Max(_reservedEnd, Math.Max(GuestMemory.MmioGapEnd, Memory.Regions[^1].End));
        start = (start + alignment - 1) & ~(alignment - 1);
        ulong end = 1ul << (X86Base.CpuId(unchecked((int)0x8000_0008), 0).Eax & 0x3f);
        if (start >= end || length > end - start)
        {
            throw new ConfigException($"{length >> 20} MiB beside {Memory.Size >> 20} MiB of RAM are more than the guest has addresses for");
        }

        _reservedEnd = start + length;
        return start;
    }

    internal void OnFirstRun() => Volatile.Write(ref _firstRun, Stopwatch.GetTimestamp());

    /// <summary>A vCPU stands still; called on its thread.</summary>
    internal void OnParked()
    {
        if (Interlocked.Increment(ref _parked) == _vcpus.Count)
        {
            Loop.Post(() =>
            {
                Action? done = _onPaused;
                _onPaused = null;
                done?.Invoke();
            });
        }
    }

    private void StopVcpus()
    {
        long start = Environment.TickCount64;
        foreach (VcpuThread vcpu in _vcpus.Concat(_spares))
        {
            vcpu.Release();

            // A vCPU may be waiting for the device thread, which is this one: serve it until the vCPU has ended.
            while (!vcpu.Join(0) && Environment.TickCount64 - start < JoinMilliseconds)
            {
                Loop.RunOnce(1);
            }
        }
    }
}
