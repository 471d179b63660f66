using System.Text.Json;
using MicroVm.Linux;
using MicroVm.Vmm.Machine;
using MicroVm.Vmm.Startup;
using MicroVm.Vmm.Tests.Boot;
using MicroVm.VmmControl;

namespace MicroVm.Vmm.Tests.Startup;

public sealed class StartupTests
{
    [Fact]
    public void Arguments()
    {
        Assert.Equal("a", CommandLineOptions.Parse(["--config", "a"]).ConfigPath);
        Assert.Equal("a=b", CommandLineOptions.Parse(["--config=a=b"]).ConfigPath);
        Assert.Equal(5, CommandLineOptions.Parse(["--config-fd", "5"]).ConfigFd);
        Assert.True(CommandLineOptions.Parse(["--help"]).ShowHelp);
        Assert.True(CommandLineOptions.Parse(["--version"]).ShowVersion);
    }

    [Theory]
    [InlineData("no configuration")]
    [InlineData("--config needs a value", "--config")]
    [InlineData("--config-fd x", "--config-fd", "x")]
    [InlineData("--config-fd -1", "--config-fd", "-1")]
    [InlineData("given twice", "--config", "a", "--config-fd", "3")]
    [InlineData("unknown argument --foo", "--foo")]
    [InlineData("unknown argument x", "x")]
    public void Wrong_arguments_are_named(string named, params string[] arguments) =>
        Assert.Contains(named, Assert.Throws<ConfigException>(() => CommandLineOptions.Parse(arguments)).Message, StringComparison.Ordinal);

    [Theory]
    [InlineData("{\"kernel\":{\"path\":\"k\"},\"foo\":1}", "foo: unknown field")]
    [InlineData("{\"kernel\":{\"path\":\"k\"},\"vcpus\":\"two\"}", "vcpus")]
    [InlineData("{\"kernel\":{\"path\":\"k\"}", "not valid JSON")]
    [InlineData("null", "null")]
    [InlineData("", "not valid JSON")]
    public void Wrong_configurations_are_named(string json, string named)
    {
        CommandLineOptions options = Options(json);
        string message = Assert.Throws<ConfigException>(() => ConfigReader.Read(options)).Message;
        Assert.Contains(named, message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', message);
    }

    [Fact]
    public void Members_that_are_left_out_keep_their_defaults()
    {
        VmmConfig config = ConfigReader.Read(Options("{\"kernel\":{\"path\":\"k\"}}"));
        Assert.Equal(
            JsonSerializer.Serialize(new VmmConfig { Kernel = FileReference.FromPath("k") }, VmmJson.Default.VmmConfig),
            JsonSerializer.Serialize(config, VmmJson.Default.VmmConfig));
        Assert.Equal((1, 128, true), (config.Vcpus, config.MemoryMiB, config.Entropy));
    }

    [Fact]
    public void Every_descriptor_of_a_configuration_is_known()
    {
        int next = 10;
        FileReference Fd() => FileReference.FromFd(next++);
        VmmConfig config = new()
        {
            Kernel = Fd(),
            PvmKernel = Fd(),
            Initrd = Fd(),
            Serial = Fd(),
            Console = new ConsoleConfig { Input = Fd(), Output = Fd() },
            Block = [new BlockConfig { File = Fd() }],
            Pmem = [Fd(), Fd()],
            Fs = [new FsConfig { Tag = "t", Sockets = Fd(), Exports = [new FsExport { Name = "n", File = Fd() }] }],
            Control = Fd(),
        };
        Assert.Equal(Enumerable.Range(10, next - 10), ProcessSetup.NamedDescriptors(config));

        // A field that is added to the configuration must be added there, too: the JSON names every descriptor.
        string json = JsonSerializer.Serialize(config, VmmJson.Default.VmmConfig);
        Assert.Equal(next - 10, json.Split("\"fd\":").Length - 1);
    }

    private static CommandLineOptions Options(string json)
    {
        using SafeFd fd = ElfBuilder.Memfd(System.Text.Encoding.UTF8.GetBytes(json));
        return CommandLineOptions.Parse(["--config-fd", fd.Duplicate().Release().ToString(System.Globalization.CultureInfo.InvariantCulture)]);
    }
}
