using MicroVm.Tests.Shared;
using MicroVm.VirtioFs.Protocol;
using Xunit;

namespace MicroVm.VirtioFs.Tests;

/// <summary>The declarations in src/MicroVm.VirtioFs/Protocol against linux/fuse.h.</summary>
public class ProtocolAbiTests
{
    private static readonly string[] Headers = ["#include <linux/fuse.h>"];

    [SkippableFact]
    public void Constants_equal_the_header()
    {
        Skip.If(AbiOracle.Missing is not null, AbiOracle.Missing);
        Assert.Empty(AbiOracle.CompareConstants(typeof(Fuse), Headers));
    }

    [SkippableFact]
    public void Operations_equal_the_header()
    {
        Skip.If(AbiOracle.Missing is not null, AbiOracle.Missing);

        // STATX came with Linux 6.6: older headers do not have it. WATCH, EVENTS and OPEN_FIFO are this project's kernel's.
        List<string> differences = AbiOracle.CompareConstants(typeof(FuseOpcode), Headers);
        differences.RemoveAll(d => d is "FUSE_STATX: no header declares it" or "FUSE_WATCH: no header declares it" or "FUSE_EVENTS: no header declares it"
            or "FUSE_OPEN_FIFO: no header declares it");
        Assert.Empty(differences);
    }

    [SkippableFact]
    public void Structs_have_the_headers_sizes_and_offsets()
    {
        Skip.If(AbiOracle.Missing is not null, AbiOracle.Missing);
        List<string> differences = [];
        foreach (Type type in AbiOracle.Structs(typeof(Fuse).Assembly, typeof(Fuse).Namespace!))
        {
            List<string> found = AbiOracle.CompareStruct(type, Headers);
            bool newer = type.Name.StartsWith("fuse_statx", StringComparison.Ordinal) || type == typeof(fuse_sx_time)
                || type == typeof(fuse_watch_in) || type == typeof(fuse_event);
            if (!newer || !found.All(d => d.EndsWith("no header declares it", StringComparison.Ordinal)))
            {
                differences.AddRange(found);
            }
        }

        Assert.Empty(differences);
    }

    [Fact]
    public unsafe void Statx_structs_have_the_protocol_documents_sizes() =>
        Assert.Equal((16, 256, 24, 288), (sizeof(fuse_sx_time), sizeof(fuse_statx), sizeof(fuse_statx_in), sizeof(fuse_statx_out)));

    // kernel-config/patches/0019.
    [Fact]
    public unsafe void Structs_of_events_have_the_patchs_sizes() => Assert.Equal((8, 24), (sizeof(fuse_watch_in), sizeof(fuse_event)));
}
