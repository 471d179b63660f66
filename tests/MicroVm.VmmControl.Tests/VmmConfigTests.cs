using System.Text.Json;
using MicroVm.VmmControl;
using Xunit;

namespace MicroVm.VmmControl.Tests;

/// <summary>The JSON at the VMM's border: what callers write is what the VMM reads, and mistakes are named.</summary>
public sealed class VmmConfigTests
{
    [Fact]
    public void Full_configuration_survives_the_way_through_json()
    {
        VmmConfig config = new()
        {
            Kernel = FileReference.FromFd(3),
            Initrd = FileReference.FromPath("/boot/initrd"),
            CommandLine = "console=ttyS0 \"quoted\"",
            MemoryMiB = 256,
            HugePages = true,
            Vcpus = 4,
            MaxVcpus = 6,
            Tables = MachineTables.Acpi,
            Serial = FileReference.FromFd(4),
            Console = new ConsoleConfig { Input = FileReference.FromFd(5), Output = FileReference.FromFd(6) },
            Vsock = new VsockConfig { Cid = 77, SocketPath = "/run/vsock" },
            Entropy = false,
            Balloon = true,
            GrowthMiB = 1024,
            Block = [new BlockConfig { File = FileReference.FromFd(7), ReadOnly = true, Id = "disk" }],
            Pmem = [FileReference.FromFd(10)],
            Fs = [new FsConfig { Tag = "t", Exports = [new FsExport { Name = "rootfs", File = FileReference.FromFd(8), ReadOnly = true }] }],
            Control = FileReference.FromFd(9),
            DieWithParent = true,
        };

        string json = JsonSerializer.Serialize(config, VmmJson.Default.VmmConfig);
        VmmConfig back = JsonSerializer.Deserialize(json, VmmJson.Default.VmmConfig)!;

        Assert.Equal(json, JsonSerializer.Serialize(back, VmmJson.Default.VmmConfig));
        Assert.Equal(7, back.Block[0].File.Fd);
        Assert.Equal(10, Assert.Single(back.Pmem).Fd);
        Assert.Equal("rootfs", back.Fs[0].Exports[0].Name);
        Assert.True(back.Fs[0].Exports[0].ReadOnly);
        Assert.Equal(MachineTables.Acpi, back.Tables);
        Assert.Equal(6, back.MaxVcpus);
    }

    [Fact]
    public void Members_left_out_have_their_defaults()
    {
        VmmConfig config = JsonSerializer.Deserialize("""{"kernel":{"path":"/vmlinux"}}""", VmmJson.Default.VmmConfig)!;
        Assert.Equal("/vmlinux", config.Kernel!.Path);
        Assert.Equal(128, config.MemoryMiB);
        Assert.Equal((1, 0), (config.Vcpus, config.MaxVcpus));
        Assert.True(config.Entropy);
        Assert.False(config.Balloon);
        Assert.Equal(0, config.GrowthMiB);
        Assert.Empty(config.Block);
        Assert.Empty(config.Fs);
        Assert.Null(config.Vsock);
        Assert.False(config.DieWithParent);
    }

    [Theory]
    [InlineData("3")]
    [InlineData("\"3\"")]
    [InlineData("-1")]
    [InlineData("\"Stop, Pause\"")]
    [InlineData("null")]
    public void Requests_are_known_by_name_alone(string operation) =>
        Assert.Throws<JsonException>(() => JsonSerializer.Deserialize($$"""{"operation":{{operation}}}""", VmmJson.Default.ControlRequest));

    [Theory]
    [InlineData("""{"kernel":{"path":"/vmlinux"},"memoryMB":64}""", "memoryMB")]
    [InlineData("""{"kernel":{"path":"/vmlinux"},"memoryMiB":"many"}""", "memoryMiB")]
    [InlineData("""{"kernel":{"path":"/vmlinux"},"tables":"Dsdt"}""", "tables")]
    [InlineData("""{"kernel":{"path":"/vmlinux"},"fs":[{"tag":"t","exports":[{"name":"x"}]}]}""", "file")]
    public void Mistakes_are_refused_by_name(string json, string named)
    {
        JsonException error = Assert.Throws<JsonException>(() => JsonSerializer.Deserialize(json, VmmJson.Default.VmmConfig));
        Assert.Contains(named, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Requests_and_answers_are_one_line_each()
    {
        ControlRequest request = new() { Operation = ControlOperation.AddExport, Tag = "t", Name = "line\nbreak", ReadOnly = true };
        string json = JsonSerializer.Serialize(request, VmmJson.Default.ControlRequest);
        Assert.DoesNotContain('\n', json);
        Assert.Equal(request, JsonSerializer.Deserialize(json, VmmJson.Default.ControlRequest));

        ControlResponse response = new()
        {
            Info = new VmmInfo { State = "running", Pid = 7, HostKind = "pvm", CommandLine = "a\nb", Counters = new Dictionary<string, long> { ["exits.mmio"] = 3 } },
        };
        json = JsonSerializer.Serialize(response, VmmJson.Default.ControlResponse);
        Assert.DoesNotContain('\n', json);
        Assert.Equal(3, JsonSerializer.Deserialize(json, VmmJson.Default.ControlResponse)!.Info!.Counters["exits.mmio"]);
    }

    [Fact]
    public void Exit_codes_are_frozen() => Assert.Equal(
        [0, 1, 3, 4, 5, 6],
        ((VmmExitCode[])[VmmExitCode.PoweredOff, VmmExitCode.Error, VmmExitCode.Reset, VmmExitCode.TripleFault, VmmExitCode.GuestError, VmmExitCode.Stopped]).Select(c => (int)c));
}
