using System.Diagnostics;
using System.Text.Json.Nodes;

namespace MicroVm.EndToEnd.Support;

/// <summary>An OCI bundle in a folder of its own: Debian's busybox as rootfs, and the config that the runtime's `spec` writes.</summary>
internal sealed class Bundle : IDisposable
{
    private static readonly Lazy<string[]> Applets = new(() =>
        Shell.Run("/bin/busybox", "--list").StandardOutput.Split('\n', StringSplitOptions.RemoveEmptyEntries));

    private Bundle(string path)
    {
        Path = path;
        Config = JsonNode.Parse(File.ReadAllText(System.IO.Path.Combine(path, "config.json")))!.AsObject();
    }

    public string Path { get; }

    public string Rootfs => System.IO.Path.Combine(Path, "rootfs");

    /// <summary>The configuration; written by <see cref="Save"/>.</summary>
    public JsonObject Config { get; }

    public JsonObject Process => Config["process"]!.AsObject();

    public JsonObject Linux => Config["linux"]!.AsObject();

    /// <summary>A bundle whose process is <c>sh -c script</c>, with no terminal.</summary>
    public static Bundle Create(string script) => Create("/bin/sh", "-c", script);

    public static Bundle Create(params string[] args)
    {
        Skip.IfNot(File.Exists("/bin/busybox"), "Debian's busybox-static is not installed");
        string path = Directory.CreateTempSubdirectory("microvm-bundle-").FullName;
        string rootfs = System.IO.Path.Combine(path, "rootfs");
        foreach (string dir in (string[])["bin", "dev", "etc", "proc", "sys", "tmp", "root", "run", "usr", "var", "mnt", "home"])
        {
            Directory.CreateDirectory(System.IO.Path.Combine(rootfs, dir));
        }

        File.SetUnixFileMode(System.IO.Path.Combine(rootfs, "tmp"), (UnixFileMode)0b001_111_111_111);
        File.Copy("/bin/busybox", System.IO.Path.Combine(rootfs, "bin/busybox"));
        foreach (string applet in Applets.Value)
        {
            if (applet != "busybox")
            {
                File.CreateSymbolicLink(System.IO.Path.Combine(rootfs, "bin", applet), "busybox");
            }
        }

        File.WriteAllText(System.IO.Path.Combine(rootfs, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n");
        File.WriteAllText(System.IO.Path.Combine(rootfs, "etc/group"), "root:x:0:\nuser:x:1000:\n");
        Shell.Run(Installation.Runtime, "spec", "--bundle", path).EnsureSuccess();
        Bundle bundle = new(path);
        bundle.Process["terminal"] = false;
        bundle.Process["args"] = new JsonArray([.. args.Select(a => JsonValue.Create(a))]);
        bundle.Config["root"]!["readonly"] = false;
        bundle.AskForCgroupNamespace();
        return bundle;
    }

    /// <summary>Replaces the configuration by one that an engine wrote (tests/Shared/Engines), with this bundle's rootfs and process.</summary>
    /// <param name="engine">File name without ".json".</param>
    /// <param name="files">Folder that stands for the engine's own: made with the files that it mounts.</param>
    public void UseEngineConfig(string engine, string files)
    {
        foreach (string name in (string[])["hosts", "hostname", "resolv.conf", ".containerenv"])
        {
            File.WriteAllText(System.IO.Path.Combine(files, name), $"{name} of the engine\n");
        }

        Directory.CreateDirectory(System.IO.Path.Combine(files, "shm"));
        string text = File.ReadAllText(System.IO.Path.Combine(AppContext.BaseDirectory, "Engines", engine + ".json"))
            .Replace("@FILES@", files, StringComparison.Ordinal);
        JsonNode args = Process["args"]!.DeepClone();
        Config.Clear();
        foreach ((string name, JsonNode? value) in JsonNode.Parse(text)!.AsObject())
        {
            Config[name] = value?.DeepClone();
        }

        Config["root"]!["path"] = "rootfs";
        Process["args"] = args;
    }

    /// <summary>
    /// A guest has cgroup version 2, and tests look at the container's cgroup at the place that its own namespace gives it; `spec` leaves
    /// that namespace out on hosts with version 1, as runc does.
    /// </summary>
    private void AskForCgroupNamespace()
    {
        JsonArray namespaces = Linux["namespaces"]!.AsArray();
        if (Installation.IsMicroVm && !namespaces.Any(n => (string?)n!["type"] == "cgroup"))
        {
            namespaces.Add(new JsonObject { ["type"] = "cgroup" });
        }
    }

    public void Save() => File.WriteAllText(System.IO.Path.Combine(Path, "config.json"), Config.ToJsonString());

    /// <summary>Puts a program of <c>guest/</c>, which the build compiled, into the rootfs' /bin.</summary>
    public void AddGuestProgram(string name) =>
        File.Copy(Installation.GuestProgram(name), System.IO.Path.Combine(Rootfs, "bin", name));

    public void AddMount(string destination, string source, string type, params string[] options) =>
        Config["mounts"]!.AsArray().Add(new JsonObject
        {
            ["destination"] = destination,
            ["type"] = type,
            ["source"] = source,
            ["options"] = new JsonArray([.. options.Select(o => JsonValue.Create(o))]),
        });

    public void Dispose() => Directory.Delete(Path, recursive: true);
}
