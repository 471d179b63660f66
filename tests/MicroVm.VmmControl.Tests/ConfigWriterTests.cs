using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using MicroVm.Tests.Shared;
using MicroVm.VmmControl.Writing;
using Xunit;

namespace MicroVm.VmmControl.Tests;

/// <summary>What is written by hand is what the serializer would write.</summary>
public sealed class ConfigWriterTests
{
    [Fact]
    public void Every_member_is_written_as_the_serializer_writes_it()
    {
        Same(new Filler().Fill<VmmConfig>(), ConfigWriter.Write, VmmJson.Default.VmmConfig);
        Same(new Filler().Fill<ControlRequest>(), ConfigWriter.Write, VmmJson.Default.ControlRequest);
    }

    [Fact]
    public void Members_that_are_not_there_are_left_out_as_the_serializer_does()
    {
        Same(new VmmConfig { Kernel = FileReference.FromPath("\"\\\n\u00e4<") }, ConfigWriter.Write, VmmJson.Default.VmmConfig);
        foreach (ControlOperation operation in Enum.GetValues<ControlOperation>())
        {
            Same(new ControlRequest { Operation = operation }, ConfigWriter.Write, VmmJson.Default.ControlRequest);
        }

        foreach (FsCache cache in Enum.GetValues<FsCache>())
        {
            Same(new ControlRequest { Operation = ControlOperation.AddExport, Cache = cache }, ConfigWriter.Write, VmmJson.Default.ControlRequest);
        }

        foreach (MachineTables tables in Enum.GetValues<MachineTables>())
        {
            Same(new VmmConfig { Kernel = FileReference.FromFd(1), Tables = tables }, ConfigWriter.Write, VmmJson.Default.VmmConfig);
        }
    }

    private static void Same<T>(T value, Func<T, byte[]> write, JsonTypeInfo<T> type) =>
        Assert.Equal(JsonSerializer.Serialize(value, type), JsonSerializer.Serialize(JsonSerializer.Deserialize(write(value), type)!, type));
}
