using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;

namespace MicroVm.Sandbox.Network;

/// <summary>
/// What changed of a namespace, as a plan for the agent: only that is carried out, so that what the container changed itself
/// stays as it is.
/// </summary>
internal static class NetworkDelta
{
    // Lifetimes are whole seconds, read at some time within one.
    private const long LifetimeSlack = 2;

    /// <summary>The difference; null when there is none.</summary>
    /// <param name="before">What the guest may have been told: the last view that it has, then those that failed.</param>
    /// <param name="wanted">What it is to have.</param>
    /// <param name="elapsedSeconds">Seconds since the first of <paramref name="before"/>, by which lifetimes became shorter.</param>
    internal static NetworkPlan? Between(IReadOnlyList<NetworkView> before, NetworkView wanted, long elapsedSeconds)
    {
        // After a failure the guest's state is unknown: everything is sent again.
        NetworkView known = before is [var only] ? only : NetworkView.Empty;
        NetworkPlan plan = new(), removed = new();
        HashSet<(string Name, int Family)> whole = [];
        foreach (HostLink link in wanted.Links)
        {
            Compare(before, known, wanted, link.Index, elapsedSeconds, plan, removed, whole);
        }

        NetworkPlan old = known.Plan, now = wanted.Plan;
        HashSet<NetworkRoute> oldRoutes = [.. old.Routes], routes = [.. now.Routes];
        HashSet<object> replaced = [.. now.Neighbours.Select(Key)];
        foreach (NetworkRoute route in now.Routes)
        {
            if (route.Family == Libc.AF_INET)
            {
                replaced.Add(Key(route));
            }
        }

        plan.Routes.AddRange(now.Routes.Where(r => !oldRoutes.Contains(r) || r.NextHops.Any(h => whole.Contains((h.Interface, (int)r.Family)))));
        plan.Rules.AddRange(now.Rules.Where(r => !old.Rules.Contains(r)));
        plan.Neighbours.AddRange(now.Neighbours.Where(n => !old.Neighbours.Contains(n) || whole.Contains((n.Interface, n.Address.Length == 4 ? Libc.AF_INET : Libc.AF_INET6))));
        foreach (NetworkPlan told in before.Select(b => b.Plan))
        {
            removed.Routes.AddRange(told.Routes.Where(r => !routes.Contains(r) && !replaced.Contains(Key(r)) && !removed.Routes.Contains(r)));
            removed.Rules.AddRange(told.Rules.Where(r => !now.Rules.Contains(r) && !removed.Rules.Contains(r)));
            removed.Neighbours.AddRange(told.Neighbours.Where(n => !replaced.Contains(Key(n)) && !removed.Neighbours.Contains(n)));
        }

        if (removed.CalculateSize() > 0)
        {
            plan.Removed = removed;
        }

        return plan.CalculateSize() > 0 ? plan : null;
    }

    private static void Compare(
        IReadOnlyList<NetworkView> before, NetworkView known, NetworkView wanted, int index, long elapsed, NetworkPlan plan, NetworkPlan removed, HashSet<(string Name, int Family)> whole)
    {
        NetworkInterface now = wanted.Find(index)!;
        NetworkInterface? last = null;
        bool renumbered = false;
        foreach (NetworkInterface told in before.Select(b => b.Find(index)).OfType<NetworkInterface>())
        {
            last = told;
            NetworkAddress[] gone = [.. told.Addresses.Where(a => !now.Addresses.Any(b => SameKey(a, b)))];
            if (gone.Length > 0)
            {
                removed.Interfaces.Add(new NetworkInterface { Name = told.Name, Mac = told.Mac, Addresses = { gone } });

                // A kernel may take an IPv4 address's secondaries along with it, and with the last all routes and neighbours.
                renumbered |= gone.Any(a => a.Local.Length == 4);
            }
        }

        if (renumbered)
        {
            whole.Add((now.Name, Libc.AF_INET));
        }

        NetworkInterface change = now.Clone();
        if (last is not null && last.Mac != now.Mac)
        {
            change.OldMac = last.Mac;
        }

        if (known.Find(index) is not { } old || (now.Up && !old.Up))
        {
            // Down, a guest's interface loses more than the host's may have.
            whole.Add((now.Name, Libc.AF_INET));
            whole.Add((now.Name, Libc.AF_INET6));
            plan.Interfaces.Add(change);
            return;
        }

        NetworkAddress[] added = [.. now.Addresses.Where(a => !old.Addresses.Any(b => SameKey(a, b) && Same(b, a, elapsed)) || (renumbered && a.Local.Length == 4))];
        if (added.Length > 0 || !WithoutAddresses(now).Equals(WithoutAddresses(old)))
        {
            change.Addresses.Clear();
            change.Addresses.AddRange(added);
            plan.Interfaces.Add(change);
        }
    }

    // What the kernel replaces when a new one comes.
    private static object Key(NetworkRoute r) => (r.Family, r.Table, r.Destination, r.DestinationLength, r.Tos, r.Priority);

    private static object Key(NetworkNeighbour n) => (n.Interface, n.Address, n.Proxy);

    private static bool SameKey(NetworkAddress a, NetworkAddress b) =>
        a.Local == b.Local && a.PrefixLength == b.PrefixLength && a.Peer == b.Peer;

    private static bool Same(NetworkAddress old, NetworkAddress now, long elapsed)
    {
        NetworkAddress aged = old.Clone();
        (aged.ValidLifetime, aged.PreferredLifetime) = (now.ValidLifetime, now.PreferredLifetime);
        return aged.Equals(now) && Close(old.ValidLifetime, now.ValidLifetime, elapsed) && Close(old.PreferredLifetime, now.PreferredLifetime, elapsed);
    }

    private static bool Close(uint old, uint now, long elapsed) => old == uint.MaxValue || now == uint.MaxValue
        ? old == now
        : Math.Abs(Math.Max(0, old - elapsed) - now) <= LifetimeSlack;

    private static NetworkInterface WithoutAddresses(NetworkInterface i)
    {
        NetworkInterface clone = i.Clone();
        clone.Addresses.Clear();
        return clone;
    }
}
