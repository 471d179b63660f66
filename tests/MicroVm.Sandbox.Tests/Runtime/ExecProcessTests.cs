using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Sandbox.Runtime;

namespace MicroVm.Sandbox.Tests.Runtime;

/// <summary>The process of an exec.</summary>
public sealed class ExecProcessTests : IDisposable
{
    private readonly TempFolder _folder = new();

    private readonly Process _pattern = new()
    {
        Args = ["init"],
        Cwd = "/srv",
        Env = ["A=1"],
        Terminal = true,
        User = new User { Uid = 5, Gid = 6, AdditionalGids = [7] },
        Capabilities = new CapabilityNames { Bounding = ["CAP_KILL"], Effective = ["CAP_KILL"], Permitted = ["CAP_KILL"] },
    };

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void ThePatternIsTheContainersProcess()
    {
        Process plain = ExecProcess.Build(new ExecRequest { Id = "c", Arguments = ["ls", "-l"] }, _pattern);
        Assert.Equal(["ls", "-l"], plain.Args);
        Assert.Equal(("/srv", 5u, 6u), (plain.Cwd, plain.User!.Uid, plain.User.Gid));
        Assert.False(plain.Terminal);
        Process changed = ExecProcess.Build(
            new ExecRequest
            {
                Id = "c",
                Arguments = ["ls"],
                Cwd = "/tmp",
                Environment = ["B=2"],
                User = "8:9",
                AdditionalGids = ["10"],
                Capabilities = ["CAP_NET_RAW"],
                Tty = true,
                NoNewPrivileges = true,
            },
            _pattern);
        Assert.Equal(["A=1", "B=2"], changed.Env);
        Assert.Equal(("/tmp", 8u, 9u), (changed.Cwd, changed.User!.Uid, changed.User.Gid));
        Assert.Equal([7u, 10u], changed.User.AdditionalGids);
        Assert.Equal(["CAP_KILL", "CAP_NET_RAW"], changed.Capabilities!.Effective);
        Assert.Null(changed.Capabilities.Inheritable);
        Assert.True(changed is { Terminal: true, NoNewPrivileges: true });
        Assert.Equal(["CAP_KILL"], _pattern.Capabilities!.Effective);
    }

    [Fact]
    public void ADocumentIsTakenAsItIs()
    {
        File.WriteAllText(_folder["process"], """{"args":["x"],"cwd":"/","user":{"uid":1}}""");
        Process process = ExecProcess.Build(new ExecRequest { Id = "c", ProcessFile = _folder["process"], Cwd = "/ignored" }, _pattern);
        Assert.Equal(("/", 1u), (process.Cwd, process.User!.Uid));
        Assert.Null(process.Env);
    }

    [Theory]
    [InlineData("a", "parsing a as int for uid failed")]
    [InlineData("1:b", "parsing b as int for gid failed")]
    [InlineData("-1", "parsing -1 as int for uid failed")]
    public void UsersAreNumbers(string user, string told) => Assert.Contains(
        told, Assert.Throws<SpecException>(() => ExecProcess.Build(new ExecRequest { Id = "c", Arguments = ["x"], User = user }, _pattern)).Message, StringComparison.Ordinal);

    [Fact]
    public void WithoutACommandThereIsNothingToDo() => Assert.Equal(
        "process args cannot be empty", Assert.Throws<SpecException>(() => ExecProcess.Build(new ExecRequest { Id = "c" }, _pattern)).Message);
}
