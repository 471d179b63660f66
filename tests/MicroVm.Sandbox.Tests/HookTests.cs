using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Sandbox.State;

namespace MicroVm.Sandbox.Tests;

/// <summary>Hooks of the runtime's namespace.</summary>
public sealed class HookTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void HooksRunInOrderWithStateAndEnvironment()
    {
        HookRunner.Run("prestart", [Sh($"cat > {_folder["state"]}; echo $A >> {_folder["log"]}", "A=first"), Sh($"pwd >> {_folder["log"]}")], State());
        Assert.Equal($$$"""{"ociVersion":"1.0.2","id":"x","status":"created","pid":42,"bundle":"{{{_folder.Path}}}","annotations":{"k":"v"}}""", File.ReadAllText(_folder["state"]));
        Assert.Equal($"first\n{_folder.Path}\n", File.ReadAllText(_folder["log"]));
    }

    [Fact]
    public void AHookWithoutEnvironmentHasTheRuntimes()
    {
        string[] args = ["sh", "-c", $"/usr/bin/env >> {_folder["env"]}; echo end >> {_folder["env"]}"];
        HookRunner.Run("prestart", [new Hook { Path = "/bin/sh", Args = [.. args] }, new Hook { Path = "/bin/sh", Args = [.. args], Env = [] }], State());
        string[] runs = File.ReadAllText(_folder["env"]).Split("end\n");
        Assert.Contains($"PATH={Environment.GetEnvironmentVariable("PATH")}\n", runs[0], StringComparison.Ordinal);
        Assert.DoesNotContain("PATH=", runs[1], StringComparison.Ordinal);
    }

    [Fact]
    public void FailureIsToldAndEndsTheRow()
    {
        SandboxException e = Assert.Throws<SandboxException>(() =>
            HookRunner.Run("createRuntime", [Sh("echo out; echo why >&2; exit 3"), Sh($"touch {_folder["second"]}")], State()));
        Assert.Equal("error running createRuntime hook #0: error running hook: exit status 3, stdout: out\n, stderr: why\n", e.Message);
        Assert.False(File.Exists(_folder["second"]));
        Assert.Equal(
            "error running poststop hook #0: fork/exec /no/hook: no such file or directory",
            Assert.Throws<SandboxException>(() => HookRunner.Run("poststop", [new Hook { Path = "/no/hook" }], State())).Message);
    }

    [Fact]
    public void HookThatTakesTooLongIsEnded()
    {
        Hook slow = Sh("exec sleep 1000");
        slow.Timeout = 1;
        Assert.Equal("error running prestart hook #0: hook ran past specified timeout of 1.0s", Assert.Throws<SandboxException>(() => HookRunner.Run("prestart", [slow], State())).Message);
    }

    [Fact]
    public void MalformedHooksAreRefusedByName()
    {
        Assert.Contains("hooks.poststop[0].path", Refused(new Hooks { Poststop = [new Hook { Path = "sh" }] }), StringComparison.Ordinal);
        Assert.Contains("hooks.prestart[0].timeout", Refused(new Hooks { Prestart = [new Hook { Path = "/bin/sh", Timeout = 0 }] }), StringComparison.Ordinal);
        HookRunner.Check(null);
        HookRunner.Check(new Hooks { Prestart = [Sh("")], CreateContainer = [] });
    }

    private static string Refused(Hooks hooks) => Assert.Throws<SpecException>(() => HookRunner.Check(hooks)).Message;

    private static Hook Sh(string script, params string[] env) => new() { Path = "/bin/sh", Args = ["sh", "-c", script], Env = [.. env, "PATH=/usr/bin:/bin"] };

    private OciState State() => new()
    {
        OciVersion = "1.0.2",
        Id = "x",
        Status = ContainerStatus.Created,
        Pid = 42,
        Bundle = _folder.Path,
        Annotations = new() { ["k"] = "v" },
    };
}
