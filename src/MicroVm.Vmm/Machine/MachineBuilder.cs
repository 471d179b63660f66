using MicroVm.Bus;
using MicroVm.InstructionEmulator;
using MicroVm.Kvm;
using MicroVm.Kvm.Native;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Linux.Tracing;
using MicroVm.Memory;
using MicroVm.Virtio.Mmio;
using MicroVm.VirtioFs.HostFiles;
using MicroVm.Vmm.Boot;
using MicroVm.Vmm.Machine.Cpu;
using MicroVm.Vmm.Serial;
using MicroVm.Vmm.Tables;
using MicroVm.Vmm.Tables.Acpi;
using MicroVm.VmmControl;
using MicroVm.VmmControl.Snapshots;

namespace MicroVm.Vmm.Machine;

/// <summary>Makes a <see cref="VirtualMachine"/> from a <see cref="VmmConfig"/>, ready to run.</summary>
public static class MachineBuilder
{
    /// <summary>Builds the machine; the descriptors that <paramref name="config"/> names are taken over.</summary>
    /// <param name="config">The configuration.</param>
    /// <param name="trace">Records the steps; null for nobody.</param>
    /// <exception cref="ConfigException">A setting cannot be carried out.</exception>
    /// <exception cref="BootException">Kernel or initrd are malformed or do not fit.</exception>
    /// <exception cref="KvmUnavailableException">The host has no KVM that can be used.</exception>
    /// <exception cref="LinuxException">The host refused something.</exception>
    /// <exception cref="SnapshotException">The snapshot to restore is damaged or does not fit.</exception>
    public static VirtualMachine Build(VmmConfig config, StepRecorder? trace = null)
    {
        ArgumentNullException.ThrowIfNull(config);
        ConfigValidator.Check(config);
        try
        {
            return Make(config, trace ?? StepRecorder.Off);
        }
        catch (SnapshotException e) when (config.Restore is { } restore)
        {
            throw new SnapshotException($"{FileOpener.NameOf(restore.State, "snapshot")}: {e.Message}");
        }
    }

    private static VirtualMachine Make(VmmConfig config, StepRecorder trace)
    {
        long began = StepRecorder.Now;
        KvmSystem kvm = config.Kvm is { } device ? new KvmSystem(FileOpener.Open(device, Libc.O_RDWR, "kvm")) : KvmSystem.Open();
        if (config.ProcSelfFd is { } directory)
        {
            ProcFd.Use(FileOpener.Open(directory, Libc.O_PATH, "procSelfFd"));
        }

        SnapshotFile? snapshot = config.Restore is { } restore ? SnapshotOpener.OpenState(restore) : null;
        KvmVm vm = kvm.CreateVm();
        began = Note(trace, "open KVM and make the VM", began);
        GuestMemory memory = snapshot is null
            ? GuestMemory.Create((ulong)config.MemoryMiB << 20, config.HugePages)
            : SnapshotOpener.MapMemory(config.Restore!, snapshot, config.MemoryMiB);
        VirtualMachine machine = new(kvm, vm, memory, new EventLoop()) { CpuTemplate = config.CpuTemplate, Trace = trace };
        _ = Note(trace, "map the guest's memory", began);
        Thread? copies = null;
        try
        {
            copies = config.Restore is { } files ? SnapshotOpener.BeginCopies(files, memory, trace) : null;
            Assemble(machine, config, snapshot);
            copies?.Join();
            return machine;
        }
        catch
        {
            copies?.Join();
            machine.Dispose();
            throw;
        }
    }

    private static void Assemble(VirtualMachine machine, VmmConfig config, SnapshotFile? snapshot)
    {
        StepRecorder trace = machine.Trace;
        long began = StepRecorder.Now;
        KvmVm vm = machine.Vm;
        vm.SetTssAddress((uint)BootLayout.KvmTss);
        vm.SetIdentityMapAddress(BootLayout.KvmTss - GuestMemory.PageSize);
        vm.CreateIrqchip();
        foreach (GuestRegion region in machine.Memory.Regions)
        {
            machine.AddMemory(region);
        }

        began = Note(trace, "make the interrupt controllers, show the memory", began);

        // vCPUs come first: the kind of host, which a vCPU's answer tells, decides on the command line, and CPUID cannot be
        // set any more once a vCPU has run.
        KvmVcpu boot = AddVcpus(machine, config, snapshot?.Header.Vcpus ?? config.Vcpus);
        machine.HostKind = HostKind.Detect(boot, machine.Memory);
        if (config.CpuTemplate != CpuTemplateNames.Host)
        {
            CheckTemplate(machine, CpuTemplate.Find(config.CpuTemplate)!);
        }

        boot.DetachThread();
        began = Note(trace, "make the vCPUs", began);

        AddPorts(machine, config);
        DeviceFactory.AddDevices(machine, config);
        machine.StateMsrs = config.Saves ? machine.Kvm.GetMsrIndexList() : null;
        began = Note(trace, "make the devices", began);
        if (snapshot is not null)
        {
            MachineSnapshot.Restore(machine, snapshot);
            _ = Note(trace, "restore the state", began);
            return;
        }

        KernelImage kernel = LoadKernel(machine, config);
        VcpuSetup.SetLapic(boot);
        VcpuSetup.SetRegisters(boot, kernel);
        _ = Note(trace, "load the kernel", began);
    }

    /// <summary>Records a step that ends now, and where the next one begins.</summary>
    private static long Note(StepRecorder trace, string step, long began)
    {
        long now = StepRecorder.Now;
        trace.Add(step, began, now);
        return now;
    }

    private static void AddPorts(VirtualMachine machine, VmmConfig config)
    {
        SafeFd? serial = config.Serial is { } file
            ? FileOpener.Open(file, Libc.O_WRONLY | Libc.O_APPEND | Libc.O_CREAT, "serial")
            : null;
        machine.Serial = new Uart16550(new BoundedOutput(serial, machine.Loop, "serial"), machine.Routing);
        machine.Pio.Add(IoPorts.Serial, 8, machine.Serial);
        machine.Pio.Add(IoPorts.KeyboardData, KeyboardController.Length, new KeyboardController(machine));
        machine.Pio.Add(IoPorts.SleepControl, AcpiPowerPorts.Length, new AcpiPowerPorts(machine));
    }

    private static KernelImage LoadKernel(VirtualMachine machine, VmmConfig config)
    {
        GuestMemory memory = machine.Memory;
        KernelImage kernel;
        (FileReference? chosen, FileReference? other) = BootsPvmKernel(machine, config) ? (config.PvmKernel, config.Kernel) : (config.Kernel, config.PvmKernel);
        if (chosen is null)
        {
            throw new ConfigException("kernel: none is given but pvmKernel, which runs on PVM hosts only, and this host is not one: install vmlinux (make kernel)");
        }

        using (BootFile file = new(FileOpener.Open(chosen, Libc.O_RDONLY, "kernel"), FileOpener.NameOf(chosen, "kernel")))
        {
            kernel = KernelLoader.Load(file, memory);
        }

        if (other is { Fd: not null })
        {
            FileOpener.Open(other, Libc.O_RDONLY, "kernel").Dispose();
        }

        Initrd initrd = default;
        if (config.Initrd is { } reference)
        {
            using BootFile file = new(FileOpener.Open(reference, Libc.O_RDONLY, "initrd"), FileOpener.NameOf(reference, "initrd"));
            initrd = Initrd.Load(file, memory, kernel);
        }

        machine.CommandLine = ComposeCommandLine(machine, config);
        KernelCommandLine.Write(memory, machine.CommandLine, kernel);
        ulong rsdp = WriteTables(machine, config);
        LongMode.Write(memory, kernel.Protocol);

        E820Entry[] map = E820.Build(memory);
        if (kernel.Protocol == BootProtocol.Pvh)
        {
            memory.TryGetSpan(BootLayout.PvhStartInfo, GuestMemory.PageSize, out Span<byte> info);
            PvhStartInfo.Build(info, initrd, map, rsdp);
        }
        else
        {
            memory.TryGetSpan(BootLayout.ZeroPage, GuestMemory.PageSize, out Span<byte> page);
            ZeroPage.Build(page, kernel, initrd, map, rsdp);
        }

        return kernel;
    }

    private static bool BootsPvmKernel(VirtualMachine machine, VmmConfig config) =>
        machine.HostKind == HostKind.Pvm && config.PvmKernel is not null;

    private static string ComposeCommandLine(VirtualMachine machine, VmmConfig config)
    {
        List<string> additions = [];
        if (config.Tables == MachineTables.MpTable)
        {
            foreach (MmioTransport t in machine.Transports)
            {
                additions.Add(KernelCommandLine.VirtioMmio(t.BaseAddress, t.Gsi));
            }

            additions.Add(KernelCommandLine.PowerOffPort);
        }

        if (config.GrowthMiB > 0)
        {
            additions.Add(KernelCommandLine.OnlineMemory);
        }

        if (Possible(config) > config.Vcpus)
        {
            additions.Add(KernelCommandLine.BootCpus(config.Vcpus));
        }

        string forHost = BootsPvmKernel(machine, config) ? HostKind.PvmKernelCommandLine : machine.HostKind.CommandLine;
        if (forHost.Length > 0)
        {
            additions.Add(forHost);
        }

        return KernelCommandLine.Compose(config.CommandLine, additions);
    }

    private static ulong WriteTables(VirtualMachine machine, VmmConfig config)
    {
        // Linux on hardware-reduced ACPI without EFI resets by the BIOS. Here: mov al, 0xfe; out 0x64, al; hlt.
        machine.Memory.TryWrite(BootLayout.ResetVector, [0xb0, IoPorts.KeyboardReset, 0xe6, (byte)IoPorts.KeyboardCommand, 0xf4]);
        Span<uint> irqs = new uint[machine.Transports.Count + 1];
        irqs[0] = IoPorts.SerialIrq;
        for (int i = 1; i < irqs.Length; i++)
        {
            irqs[i] = machine.Transports[i - 1].Gsi;
        }

        if (config.Tables != MachineTables.Acpi)
        {
            MpTable.Write(machine.Memory, Possible(config), irqs);
        }

        if (config.Tables == MachineTables.MpTable)
        {
            return 0;
        }

        AcpiVirtioDevice[] devices = new AcpiVirtioDevice[machine.Transports.Count];
        for (int i = 0; i < devices.Length; i++)
        {
            devices[i] = new AcpiVirtioDevice(machine.Transports[i].BaseAddress, machine.Transports[i].Gsi);
        }

        return AcpiTables.Write(machine.Memory, Possible(config), devices);
    }

    /// <param name="machine">Gets them.</param>
    /// <param name="config">How many it boots with, and may have.</param>
    /// <param name="count">How many it starts with: a VM that had grown when it was saved has more than it booted with.</param>
    private static KvmVcpu AddVcpus(VirtualMachine machine, VmmConfig config, int count)
    {
        int possible = Possible(config);
        if (count < config.Vcpus || count > possible)
        {
            throw new SnapshotException($"the snapshot does not fit: it has {count} vCPUs, the configuration {(possible > config.Vcpus ? $"{config.Vcpus} to {possible}" : config.Vcpus)}");
        }

        KvmVcpu boot = machine.Vm.CreateVcpu(0);
        machine.AddVcpu(boot);
        machine.VcpuFactory = new VcpuFactory(machine.Vm, new CpuidBuilder(
            machine.Kvm.GetSupportedCpuid(),
            possible,
            TscKhz(boot),
            machine.Kvm.CheckExtension(KvmAbi.KVM_CAP_TSC_DEADLINE_TIMER) != 0,
            CpuTemplate.Find(config.CpuTemplate)!));
        machine.VcpuFactory.SetUp(boot);
        for (int i = 1; i < count; i++)
        {
            machine.AddVcpu(machine.VcpuFactory.Create(i));
        }

        if (possible > config.Vcpus)
        {
            machine.AddSpareVcpus(possible);
        }

        return boot;
    }

    private static int Possible(VmmConfig config) => Math.Max(config.Vcpus, config.MaxVcpus);

    private static void CheckTemplate(VirtualMachine machine, CpuTemplate template)
    {
        if (machine.HostKind == HostKind.Pvm)
        {
            throw new ConfigException($"cpuTemplate: {template.Name} is not possible on this host, whose KVM (PVM) shows guests all of its CPUID");
        }

        template.Require(machine.Kvm.GetSupportedCpuid());
    }

    private static uint TscKhz(KvmVcpu vcpu)
    {
        try
        {
            return (uint)vcpu.GetTscKhz();
        }
        catch (LinuxException)
        {
            // A host whose TSC is unstable does not say; the guest then measures, or takes kvm-clock's word.
            return 0;
        }
    }
}
