using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using FsCheck;
using FsCheck.Fluent;
using MicroVm.Json;
using MicroVm.Oci.Config;
using MicroVm.Oci.Tests.Support;

namespace MicroVm.Oci.Tests;

/// <summary>Reading and checking config.json.</summary>
public sealed class SpecTests
{
    [SkippableFact]
    public void DefaultSpecIsRuncs()
    {
        string runc = (string[])["/usr/sbin/runc", "/usr/bin/runc"] is var paths && Array.Find(paths, File.Exists) is { } found ? found : "";
        Skip.If(runc.Length == 0, "runc is not installed: nothing to compare with");
        string dir = Directory.CreateTempSubdirectory("microvm-oci-").FullName;
        try
        {
            (int status, string output) = CProgram.Execute(runc, ["spec"], dir);
            Assert.True(status == 0, output);
            JsonNode theirs = JsonNode.Parse(File.ReadAllText(Path.Combine(dir, "config.json")))!;
            string ours = DefaultSpec.For(File.Exists("/sys/fs/cgroup/cgroup.controllers"));
            Assert.True(JsonNode.DeepEquals(theirs, JsonNode.Parse(ours)), "runc's default differs from DefaultSpec");
            Assert.NotEqual(DefaultSpec.For(unifiedCgroups: true), DefaultSpec.For(unifiedCgroups: false));
        }
        finally
        {
            Directory.Delete(dir, recursive: true);
        }
    }

    [Fact]
    public void DefaultSpecIsValidAndSurvivesTheModel()
    {
        Spec spec = Parse(DefaultSpec.Json);
        WithRootfs(dir => Assert.Equal(Path.Combine(dir, "rootfs"), SpecValidator.Validate(spec, dir)));
        string again = JsonSerializer.Serialize(spec, SpecJson.Default.Spec);
        Assert.True(JsonNode.DeepEquals(JsonNode.Parse(DefaultSpec.Json), JsonNode.Parse(again)), again);
    }

    [Fact]
    public void UnknownMembersAndNullsPass()
    {
        Spec spec = Parse("""{"ociVersion":"1.2.0","process":null,"vm":{"x":[1]},"linux":{"futureThing":true,"resources":{"memory":{"limit":null}}},"annotations":{"a":"b"}}""");
        Assert.Null(spec.Process);
        Assert.Null(spec.Linux!.Resources!.Memory!.Limit);
        Assert.Equal("b", spec.Annotations!["a"]);
    }

    [Theory]
    [InlineData("""{"root":{"path":7}}""", "root.path has a wrong type (line 1")]
    [InlineData("""{"process":{"args":"sh"}}""", "process.args")]
    [InlineData("""{"process":{"args":[1]}}""", "process.args[0]")]
    [InlineData("""{"process":{"user":{"uid":-1}}}""", "process.user.uid")]
    [InlineData("""{"process":{"user":{"uid":1.5}}}""", "process.user.uid")]
    [InlineData("""{"linux":{"seccomp":{"syscalls":[{"names":["a"]},{"args":[{"index":"x"}]}]}}}""", "linux.seccomp.syscalls[1].args[0].index")]
    [InlineData("""{"linux":{"sysctl":{"net.x":1}}}""", "linux.sysctl")]
    [InlineData("[]", "the document")]
    [InlineData("7", "the document")]
    [InlineData("null", "null")]
    [InlineData("", "empty")]
    [InlineData("{", "not valid JSON")]
    [InlineData("""{"a":1,}""", "not valid JSON")]
    [InlineData("""{"hostname":"a\u0000b"}""", "NUL")]
    [InlineData("""{"hostname":"\ud800"}""", "not valid")]
    public void MalformedDocumentsSayWhere(string json, string named)
    {
        SpecException e = Assert.Throws<SpecException>(() => Parse(json));
        Assert.Contains(named, e.Message, StringComparison.Ordinal);
        Assert.StartsWith("config.json", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void DeepNestingIsRefused() =>
        Assert.Throws<SpecException>(() => Parse(string.Concat(Enumerable.Repeat("[", 10000))));

    [Fact]
    public void AnyDamageIsAnErrorOrStillASpec()
    {
        byte[] whole = Encoding.UTF8.GetBytes(DefaultSpec.Json);
        Prop.ForAll(Gen.Choose(0, whole.Length - 1).ToArbitrary(), Gen.Choose(0, 255).ToArbitrary(), (at, value) =>
        {
            byte[] damaged = [.. whole];
            damaged[at] = (byte)value;
            foreach (byte[] json in (byte[][])[damaged, whole[..at]])
            {
                try
                {
                    SpecReader.Parse(json, SpecReader.FileName, SpecDocument.Config);
                }
                catch (SpecException)
                {
                    // Refused: the other allowed outcome.
                }
            }

            return true;
        }).QuickCheckThrowOnFailure();
    }

    [Fact]
    public void MissingFileIsNamed()
    {
        SpecException e = Assert.Throws<SpecException>(() => SpecReader.ReadBundle("/no/such/bundle"));
        Assert.Equal("JSON specification file config.json not found: /no/such/bundle/config.json", e.Message);
    }

    [Fact]
    public void ConfigThatIsADirectoryIsNamed() => WithRootfs(dir =>
    {
        Directory.CreateDirectory(Path.Combine(dir, "config.json"));
        Assert.Contains("cannot be read", Assert.Throws<SpecException>(() => SpecReader.ReadBundle(dir)).Message, StringComparison.Ordinal);
    });

    public static TheoryData<string, string, string> Invalid => new()
    {
        { "ociVersion", "null", "ociVersion must be specified" },
        { "ociVersion", "\"2.0.0\"", "2.0.0" },
        { "process", "null", "process property must not be empty" },
        { "process.cwd", "\"\"", "Cwd property must not be empty" },
        { "process.cwd", "\"tmp\"", "Cwd must be an absolute path" },
        { "process.args", "[]", "args must not be empty" },
        { "process.args", "[null]", "not null" },
        { "process.selinuxLabel", "\"x\"", "process.selinuxLabel is not supported" },
        { "process.apparmorProfile", "\"docker-default\"", "process.apparmorProfile is not supported" },
        { "process.oomScoreAdj", "1001", "oomScoreAdj" },
        { "process.user.umask", "4096", "umask" },
        { "process.execCPUAffinity", "{\"initial\":\"0-\"}", "execCPUAffinity" },
        { "root", "null", "root must be specified" },
        { "root.path", "\"nowhere\"", "nowhere: no such file or directory" },
        { "root.path", "\"/etc/passwd\"", "is not a directory" },
        { "linux.namespaces", "[{\"type\":\"mount\"},{\"type\":\"mount\"}]", "duplicated ns \"mount\"" },
        { "linux.namespaces", "[{\"type\":\"moon\"}]", "namespace \"moon\" does not exist" },
        { "linux.namespaces", "[{\"type\":\"mount\"},{\"type\":\"cgroup\",\"path\":\"/proc/1/ns/cgroup\"}]", "/proc/1/ns/cgroup" },
        { "linux.namespaces", "[{\"type\":\"pid\"}]", "mount namespace" },
        { "linux.namespaces", "[{\"type\":\"mount\"}]", "unable to set hostname without a private UTS namespace" },
        { "linux.namespaces", "[{\"type\":\"mount\"},{\"type\":\"uts\"},{\"type\":\"user\"}]", "no uid or no gid mappings" },
        { "linux.namespaces", Without("pid"), "the host's process ids (linux.namespaces without one of type pid) is not supported: a VM has processes of its own: leave out --pid=host" },
        { "linux.namespaces", Without("ipc"), "(linux.namespaces without one of type ipc) is not supported: a VM has its own: leave out --ipc=host" },
        { "linux.uidMappings", "[{\"containerID\":0,\"hostID\":1,\"size\":1}]", "USER namespace isn't enabled" },
        { "linux.timeOffsets", "{\"monotonic\":{\"secs\":1}}", "time namespace isn't enabled" },
        { "linux.mountLabel", "\"x\"", "linux.mountLabel is not supported" },
        { "linux.intelRdt", "{\"closID\":\"x\"}", "linux.intelRdt is not supported" },
        { "linux.memoryPolicy", "{\"mode\":\"x\"}", "linux.memoryPolicy is not supported" },
        { "linux.netDevices", "{\"eth0\":{}}", "linux.netDevices is not supported" },
        { "mounts", "[{\"source\":\"x\"}]", "mounts[0].destination" },
        { "mounts", "[{\"destination\":\"/x\",\"uidMappings\":[{\"size\":1}]}]", "mounts[0].uidMappings is not supported" },
    };

    private static string Without(string type) => new JsonArray(
        [.. ((string[])["mount", "pid", "ipc", "uts", "network"]).Where(t => t != type).Select(t => (JsonNode)new JsonObject { ["type"] = t })]).ToJsonString();

    [Theory]
    [MemberData(nameof(Invalid))]
    public void InvalidSpecsSayWhat(string member, string value, string named)
    {
        JsonObject spec = JsonNode.Parse(DefaultSpec.Json)!.AsObject();
        string[] path = member.Split('.');
        JsonObject at = path[..^1].Aggregate(spec, (node, name) => node[name]!.AsObject());
        at[path[^1]] = JsonNode.Parse(value);
        WithRootfs(dir =>
        {
            SpecException e = Assert.Throws<SpecException>(() => SpecValidator.Validate(Parse(spec.ToJsonString()), dir));
            Assert.Contains(named, e.Message, StringComparison.Ordinal);
        });
    }

    [Theory]
    [InlineData("a", true)]
    [InlineData("Ab0_+-.z", true)]
    [InlineData("...", true)]
    [InlineData("", false)]
    [InlineData(".", false)]
    [InlineData("..", false)]
    [InlineData("a/b", false)]
    [InlineData("a b", false)]
    [InlineData("ä", false)]
    [InlineData("a\n", false)]
    public void ContainerIdsFollowRuncsRule(string id, bool valid)
    {
        if (valid)
        {
            ContainerId.Check(id);
        }
        else
        {
            Assert.Equal(id.Length == 0 ? "container id cannot be empty" : "invalid container ID format", Assert.Throws<SpecException>(() => ContainerId.Check(id)).Message);
        }
    }

    [Fact]
    public void FeaturesListWhatIsResolved()
    {
        Features features = new() { Annotations = [] };
        JsonNode json = JsonNode.Parse(JsonRecords.Write(features))!;
        Assert.Contains("rro", json["mountOptions"]!.AsArray().Select(n => n!.GetValue<string>()));
        Assert.True(json["linux"]!["cgroup"]!["v2"]!.GetValue<bool>());
        Assert.False(json["linux"]!["apparmor"]!["enabled"]!.GetValue<bool>());
        Assert.DoesNotContain("SCMP_ACT_NOTIFY", json["linux"]!["seccomp"]!["actions"]!.AsArray().Select(n => n!.GetValue<string>()));
    }

    private static Spec Parse(string json) => SpecReader.Parse(Encoding.UTF8.GetBytes(json), SpecReader.FileName, SpecDocument.Config);

    private static void WithRootfs(Action<string> action)
    {
        string dir = Directory.CreateTempSubdirectory("microvm-oci-").FullName;
        try
        {
            Directory.CreateDirectory(Path.Combine(dir, "rootfs"));
            action(dir);
        }
        finally
        {
            Directory.Delete(dir, recursive: true);
        }
    }
}
