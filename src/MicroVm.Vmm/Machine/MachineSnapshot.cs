using System.Globalization;
using MicroVm.InstructionEmulator;
using MicroVm.Linux;
using MicroVm.Virtio.Mmio;
using MicroVm.Vmm.Serial;
using MicroVm.Vmm.Snapshot;
using MicroVm.VmmControl.Snapshots;

namespace MicroVm.Vmm.Machine;

/// <summary>Writes a machine that stands still into the two files of a snapshot. Device thread.</summary>
internal static class MachineSnapshot
{
    // A request that takes the host longer than this is not waited for.
    private const int ParkMilliseconds = 5000;
    private const string Chips = "chips", Serial = "serial";

    /// <summary>Writes the snapshot. The machine cannot go on afterwards: its devices' threads have let go of their queues.</summary>
    /// <param name="machine">The machine; its vCPUs are parked.</param>
    /// <param name="state">Takes the state; empty.</param>
    /// <param name="memory">Takes the memory; empty.</param>
    /// <exception cref="SnapshotException">The machine cannot be saved as it is; the message says why.</exception>
    /// <exception cref="LinuxException">A file cannot be written.</exception>
    public static void Save(VirtualMachine machine, SafeFd state, SafeFd memory)
    {
        foreach (MmioTransport transport in machine.Transports)
        {
            if (!transport.Device.TryPark(ParkMilliseconds))
            {
                throw new SnapshotException($"{transport.Device.Name} has a request that takes longer than {ParkMilliseconds / 1000} s");
            }
        }

        foreach (MmioTransport transport in machine.Transports)
        {
            if (transport.WhyNotSaved() is { } reason)
            {
                throw new SnapshotException(reason);
            }
        }

        uint[] msrs = machine.StateMsrs ?? throw new SnapshotException("the VMM was not started to save its VM (\"saves\" of its configuration)");
        StateWriter chips = new();
        ChipState.Save(machine.Vm, chips);
        StateWriter[] vcpus = [.. machine.Vcpus.Select(_ => new StateWriter())];
        for (int i = 0; i < vcpus.Length; i++)
        {
            StateWriter writer = vcpus[i];
            machine.Vcpus[i].RunParked(vcpu => VcpuState.Save(vcpu, machine.CpuidOf(vcpu.Id), msrs, writer));
        }

        PageChecksum checksum = MemoryWriter.Write(machine.Memory, memory);
        SnapshotWriter snapshot = new(new SnapshotHeader
        {
            Vmm = typeof(MachineSnapshot).Assembly.GetName().Version?.ToString(3) ?? "",
            CreatedAt = DateTimeOffset.UtcNow.ToUnixTimeSeconds(),
            HostKind = machine.HostKind.Name,
            CommandLine = machine.CommandLine,
            MemoryMiB = (int)(machine.Memory.Size >> 20),
            MemoryBytes = checksum.Bytes,
            MemoryChecksum = checksum.Text,
            Vcpus = vcpus.Length,
            CpuTemplate = machine.CpuTemplate,
            Devices = string.Join(' ', machine.Transports.Select(t => t.Device.Name)),
        });
        for (int i = 0; i < vcpus.Length; i++)
        {
            snapshot.Add(VcpuSection(i), VcpuState.Version, vcpus[i].Content);
        }

        snapshot.Add(Chips, ChipState.Version, chips.Content);
        snapshot.Add(Serial, Uart16550.StateVersion, machine.Serial!.Save);
        foreach (MmioTransport transport in machine.Transports)
        {
            snapshot.Add(transport.Device.Name, MmioTransport.StateVersion, transport.Save);
        }

        HostFile.WriteAllAt(state, snapshot.ToArray(), 0, "the state file");
    }

    /// <summary>Gives a machine that is built as the configuration says, but has not run, the state of a snapshot.</summary>
    /// <param name="machine">The machine; its memory is the snapshot's.</param>
    /// <param name="snapshot">The state.</param>
    /// <exception cref="SnapshotException">The state is malformed, or does not fit the machine or this host.</exception>
    public static void Restore(VirtualMachine machine, SnapshotFile snapshot)
    {
        SnapshotHeader header = snapshot.Header;
        string devices = string.Join(' ', machine.Transports.Select(t => t.Device.Name));
        string? different =
            header.HostKind != machine.HostKind.Name ? $"it was made on a host of kind \"{header.HostKind}\", this one is \"{machine.HostKind.Name}\""
            : header.CpuTemplate != machine.CpuTemplate ? $"it has the CPU template \"{header.CpuTemplate}\", the configuration \"{machine.CpuTemplate}\""
            : header.Devices != devices ? $"it has the devices \"{header.Devices}\", the configuration \"{devices}\""
            : null;
        if (different is not null)
        {
            throw new SnapshotException($"the snapshot does not fit: {different}");
        }

        // First the interrupt controllers, which take what the devices raise; last the clock, which runs from then on.
        ulong clock = ChipState.Restore(machine.Vm, snapshot.Open(Chips, ChipState.Version));
        for (int i = 0; i < machine.Vcpus.Count; i++)
        {
            StateReader reader = snapshot.Open(VcpuSection(i), VcpuState.Version);
            VcpuState.Restore(machine.Vcpus[i].Vcpu, machine.CpuidOf(i), machine.HostKind == HostKind.Pvm, reader);
        }

        machine.Serial!.Restore(snapshot.Open(Serial, Uart16550.StateVersion));
        foreach (MmioTransport transport in machine.Transports)
        {
            transport.Restore(snapshot.Open(transport.Device.Name, MmioTransport.StateVersion));
        }

        ChipState.StartClock(machine.Vm, clock);
        machine.CommandLine = header.CommandLine;
    }

    private static string VcpuSection(int index) => string.Create(CultureInfo.InvariantCulture, $"vcpu{index}");
}
