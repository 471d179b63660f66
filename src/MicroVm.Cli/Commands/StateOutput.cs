using System.Globalization;
using System.Text;
using MicroVm.Json;
using MicroVm.Sandbox;
using MicroVm.Sandbox.State;

namespace MicroVm.Cli.Commands;

/// <summary>runc's documents and table of containers.</summary>
internal static class StateOutput
{
    private const int MinColumn = 12, Padding = 3;

    /// <summary>What <c>state</c> prints: indented JSON without a newline at its end, and no owner.</summary>
    internal static string Document((ContainerState State, ContainerStatus Status) container) =>
        Encoding.UTF8.GetString(JsonRecords.Write(Of(container, ""), indent: 2));

    /// <summary>What <c>list</c> prints.</summary>
    /// <exception cref="SandboxException">The format is unknown.</exception>
    /// <param name="containers">What to list.</param>
    /// <param name="format">"table" or "json".</param>
    /// <param name="quiet">Ids alone.</param>
    /// <param name="addresses">Reads a container's IP addresses; null leaves them out, as runc has none.</param>
    internal static string List(
        IReadOnlyList<(ContainerState State, ContainerStatus Status)> containers, string format, bool quiet,
        Func<ContainerState, IReadOnlyList<string>>? addresses = null)
    {
        if (quiet)
        {
            return string.Concat(containers.Select(c => c.State.Id + "\n"));
        }

        List<ContainerDocument> documents = [.. containers.Select(c => Of(c, UserName(c.State.Owner)) with
        {
            Addresses = c.Status == ContainerStatus.Stopped ? addresses is null ? null : [] : addresses?.Invoke(c.State),
        })];
        return format switch
        {
            "table" => Table(documents, addresses is not null),
            "json" => (documents.Count == 0 ? "null" : Encoding.UTF8.GetString(JsonRecords.WriteList(documents))) + "\n",
            _ => throw new SandboxException("invalid format option"),
        };
    }

    private static ContainerDocument Of((ContainerState State, ContainerStatus Status) container, string owner) => new()
    {
        OciVersion = container.State.OciVersion,
        Id = container.State.Id,
        Pid = container.Status == ContainerStatus.Stopped ? 0 : container.State.Init.Pid,
        Status = container.Status == ContainerStatus.Creating ? ContainerStatus.Created : container.Status,
        Bundle = container.State.Bundle,
        Rootfs = container.State.Rootfs,
        Created = Time(container.State.Created),
        Annotations = container.State.Annotations is { Count: > 0 } ? container.State.Annotations : null,
        Owner = owner,
    };

    /// <summary>RFC 3339 with as many digits of the fraction as there are, as Go prints it.</summary>
    private static string Time(DateTimeOffset time) => time.UtcDateTime.ToString("yyyy-MM-dd'T'HH:mm:ss.FFFFFFF'Z'", CultureInfo.InvariantCulture);

    private static string Table(List<ContainerDocument> documents, bool addresses)
    {
        List<string[]> rows = [["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]];
        rows.AddRange(documents.Select(d => new[]
        {
            d.Id, d.Pid.ToString(CultureInfo.InvariantCulture), d.Status.ToString().ToLowerInvariant(), d.Bundle, d.Created, d.Owner,
        }));
        if (addresses)
        {
            rows = [[.. rows[0], "ADDRESSES"], .. rows.Skip(1).Select((r, i) => r.Append(string.Join(',', documents[i].Addresses!)).ToArray())];
        }

        StringBuilder text = new();
        foreach (string[] row in rows)
        {
            for (int i = 0; i < row.Length - 1; i++)
            {
                text.Append(row[i].PadRight(Math.Max(MinColumn, rows.Max(r => r[i].Length) + Padding)));
            }

            text.Append(row[^1]).Append('\n');
        }

        return text.ToString();
    }

    private static string UserName(uint uid)
    {
        string number = uid.ToString(CultureInfo.InvariantCulture);
        try
        {
            return File.ReadLines("/etc/passwd").Select(l => l.Split(':')).FirstOrDefault(f => f.Length > 2 && f[2] == number)?[0] ?? "#" + number;
        }
        catch (IOException)
        {
            return "#" + number;
        }
    }
}

/// <summary>runc's description of a container.</summary>
internal sealed record ContainerDocument : IJsonRecord
{
#pragma warning disable CS1591 // named and documented by runtime.md and runc's list
    public required string OciVersion { get; init; }

    public required string Id { get; init; }

    public required int Pid { get; init; }

    public required ContainerStatus Status { get; init; }

    public required string Bundle { get; init; }

    public required string Rootfs { get; init; }

    public required string Created { get; init; }

    public SortedDictionary<string, string>? Annotations { get; init; }

    public required string Owner { get; init; }

    public IReadOnlyList<string>? Addresses { get; init; }
#pragma warning restore CS1591

    // Written alone.
    void IJsonRecord.Members(ref JsonMembers members)
    {
        _ = members.Text("ociVersion"u8, OciVersion);
        _ = members.Text("id"u8, Id);
        _ = members.Number("pid"u8, Pid);
        _ = members.Named("status"u8, Status, ContainerState.StatusNames);
        _ = members.Text("bundle"u8, Bundle);
        _ = members.Text("rootfs"u8, Rootfs);
        _ = members.Text("created"u8, Created);
        _ = members.TextMap("annotations"u8, Annotations);
        _ = members.Text("owner"u8, Owner);
        _ = members.Texts("addresses"u8, Addresses is null ? null : [.. Addresses]);
    }
}
