using MicroVm.VmmControl.Snapshots;

namespace MicroVm.VmmControl.Tests.Snapshots;

/// <summary>The state file that <c>golden/version-1.state</c> is: a later version of the format keeps the file, and must read it.</summary>
internal static class GoldenSnapshot
{
    /// <summary>What it is of.</summary>
    public static SnapshotHeader Header { get; } = new()
    {
        Vmm = "1.2.3",
        CreatedAt = 1_700_000_000,
        HostKind = "pvm",
        CommandLine = "console=ttyS0 quiet",
        MemoryMiB = 128,
        MemoryBytes = 8192,
        MemoryChecksum = "00112233445566778899aabbccddeeff",
        Vcpus = 2,
        CpuTemplate = "host",
        Devices = "rng vsock",
    };

    /// <summary>Writes it.</summary>
    public static byte[] Make()
    {
        SnapshotWriter writer = new(Header);
        writer.Add("vcpu0", 7, state =>
        {
            state.Write(0x1122334455667788ul);
            state.WriteFlag(true);
            state.WriteText("\u00e9");
        });
        writer.Add("empty", 1, default(ReadOnlyMemory<byte>));
        writer.Add("fs0", 1, state => state.WriteBytes(new byte[100]));
        return writer.ToArray();
    }
}
