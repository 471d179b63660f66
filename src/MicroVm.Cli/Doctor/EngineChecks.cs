using System.Text.Json;

namespace MicroVm.Cli.Doctor;

/// <summary>Which container engines of this host are set up to use this runtime.</summary>
internal static class EngineChecks
{
    private const string Docker = "/etc/docker/daemon.json", Podman = "/etc/containers/containers.conf", Containerd = "/etc/containerd/config.toml";
    private const string PodmanDropIn = "/etc/containers/containers.conf.d/microvm.conf", Crio = "/etc/crio/crio.conf.d/50-microvm.conf";

    /// <summary>A finding for each engine.</summary>
    /// <param name="program">Path of this executable.</param>
    internal static IEnumerable<Finding> All(string program) =>
    [
        new(FindingState.Ok, "Docker", DockerRuntimes(HostText.Read(Docker), program)),
        new(FindingState.Ok, "Podman", HostText.Read(PodmanDropIn) is { } dropIn
            ? Mentions(dropIn, PodmanDropIn, "microvm install podman")
            : Mentions(HostText.Read(Podman), Podman, $"microvm install podman, or podman --runtime {program}")),
        new(FindingState.Ok, "containerd", Mentions(HostText.Read(Containerd), Containerd, "microvm install containerd")),
        new(FindingState.Ok, "CRI-O", Mentions(HostText.Read(Crio), Crio, "microvm install crio")),
    ];

    /// <summary>The runtimes of a daemon.json that are this one.</summary>
    internal static string DockerRuntimes(string? json, string program)
    {
        string advice = $"not set up: microvm install docker, or {{\"runtimes\": {{\"microvm\": {{\"path\": \"{program}\"}}}}}} in {Docker}";
        if (json is null)
        {
            return advice;
        }

        try
        {
            using JsonDocument document = JsonDocument.Parse(json);
            if (document.RootElement.ValueKind != JsonValueKind.Object
                || !document.RootElement.TryGetProperty("runtimes", out JsonElement runtimes) || runtimes.ValueKind != JsonValueKind.Object)
            {
                return advice;
            }

            string[] ours = [.. runtimes.EnumerateObject().Where(r => IsOurs(r.Value, program)).Select(r => $"{r.Name}{Arguments(r.Value)}")];
            return ours.Length == 0 ? advice : $"{Docker} has runtime {string.Join(", ", ours)}";
        }
        catch (JsonException e)
        {
            return $"{Docker} is not valid JSON (line {e.LineNumber + 1})";
        }
    }

    /// <summary>Whether a line of a configuration that is no comment names this runtime.</summary>
    internal static string Mentions(string? text, string file, string advice) =>
        (text ?? "").Split('\n').Any(l => !l.TrimStart().StartsWith('#') && l.Contains("microvm", StringComparison.Ordinal))
            ? $"{file} names microvm"
            : $"not set up in {file}: {advice}";

    private static bool IsOurs(JsonElement runtime, string program) =>
        runtime.ValueKind == JsonValueKind.Object && runtime.TryGetProperty("path", out JsonElement path) && path.ValueKind == JsonValueKind.String
        && path.GetString() is { } text && (text == program || Path.GetFileName(text) == "microvm");

    private static string Arguments(JsonElement runtime) =>
        runtime.TryGetProperty("runtimeArgs", out JsonElement arguments) && arguments.ValueKind == JsonValueKind.Array && arguments.GetArrayLength() > 0
            ? $" with {string.Join(' ', arguments.EnumerateArray().Select(a => a.ToString()))}"
            : "";
}
